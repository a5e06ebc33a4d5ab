"""The INT8 export: the trunk with 8-bit weights and activations, as ONNX Runtime runs it fast on CPUs."""
