from importlib.util import find_spec

from benchmarks.peers.__main__ import _NEED_CHECKPOINT, peers


def test_each_peer_has_a_name_and_a_program():
    found = peers()
    assert len({peer.name for peer in found}) == len(found)
    modules = {peer.module for peer in found if peer.module}
    assert all(find_spec(f"benchmarks.peers.{module}") is not None for module in modules)
    assert set(_NEED_CHECKPOINT) <= modules
