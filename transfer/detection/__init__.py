"""Object detection on Pascal VOC trees from any backbone with feature levels."""
