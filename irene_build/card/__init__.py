"""Records of a model's predicted energy that others read: SPDX, CycloneDX, Hugging Face model cards."""
