"""Everything that happens to an image before and after the network, with numpy and Pillow only.

`codec` turns bytes into pixels and back; `tiling` splits an image into tiles and stitches them. Imports neither Flask
nor Triton nor torch.
"""
