"""What runs on a GPU: the device and its memory, image decoding, the patch kernel, the engines' interface, the stages.

Importing this package needs no driver and no GPU package; opening a device does.
"""
