"""Tasks that start from a backbone; of pretrain it imports the public modules only."""
