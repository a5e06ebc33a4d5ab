"""The GPU side: a device, its memory, its streams, and the kernel that samples patches.

Importing this package needs no driver and no GPU package; opening a device does.
"""
