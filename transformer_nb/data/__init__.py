"""Text as files: tokenizers, texts and their tokens. Beside them lies the prose of the series."""
