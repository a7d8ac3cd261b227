"""Semantic segmentation from a backbone: FCN, DeepLabV3, U-Net; images, and slices of volumes."""
