"""Text as files. `series.txt`, next to the modules, is the prose of the series.

    text_files              text files and notebooks, read in pieces
    tokenizer_files         tokenizer.json, vocab.json and merges.txt
    token_ids               what `decode` takes
    pretrained_tokenizer    WordPiece and SentencePiece, of published models
    token_pieces            pieces of text that have the tokens of the whole
    token_files             the tokens of text files of any size, on disk
"""
