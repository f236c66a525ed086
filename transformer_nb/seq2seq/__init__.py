"""From one text to another: what the encoder-decoder needs to be trained and to translate."""
