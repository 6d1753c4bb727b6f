"""What happens to an image before and after the network, on numpy and Pillow alone.

The codec (`codec`: bytes <-> pixels) and the tiling (`tiling`: image <-> tiles). It knows neither Flask nor Triton nor
torch.
"""
