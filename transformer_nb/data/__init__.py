"""Text as files; beside the modules lies `series.txt`, the prose of the series.

    text_files         text files and notebooks, read in pieces
    tokenizer_files    tokenizer.json, vocab.json and merges.txt
    token_files        the tokens of a text of any size, on the disk
"""
