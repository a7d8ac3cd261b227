"""Classification on image folders from any backbone: linear probe, k-NN, fine-tuning."""
