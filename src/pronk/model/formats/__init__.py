"""What a model can be written as, and how each is opened."""
