"""What is wrong with somebody's attention, layer, model, norm or loss."""
