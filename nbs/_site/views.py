"""The views of `explore` that the site shows: saved files, which need no kernel. The models are trained here, for some seconds."""

from pathlib import Path

VIEWS = {  # the page, a line of the cell below which the view stands, its file, and what it shows
    "workshop/explorer": ('view = explore(model, tokenizer, "the river bank floods"', "view.html", "A model of two layers on the text: the river bank floods"),
}


def frames(page: str, source: str, up: str) -> list[str]:
    "Return the view that belongs below a cell of a page, as a block of Markdown, or nothing."
    marker, file, title = VIEWS.get(page, ("", "", ""))
    if not marker or marker not in source:
        return []
    return [
        f'<div class="view">\n\nThe same view, alive in your browser, or <a href="{up}views/{file}">on a page of its own</a>:\n\n'
        f'<iframe src="{up}views/{file}" title="{title}" loading="lazy"></iframe>\n\n</div>'
    ]


def make(folder: Path) -> None:
    "Write the views that are not there yet, or older than the package or this file."
    import transformer_nb

    sources = [Path(__file__), *(Path(transformer_nb.__file__).parent / "notebook").glob("explorer*")]
    newest = max(path.stat().st_mtime for path in sources)
    if all((folder / file).exists() and (folder / file).stat().st_mtime > newest for _, file, _ in VIEWS.values()):
        return
    import torch

    from transformer_nb.notebook.explorer import explore
    from transformer_nb.tokenization import CharTokenizer, series_corpus
    from transformer_nb.training import TrainingConfig, train
    from transformer_nb.transformer import LanguageModel, TransformerConfig

    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tokenizer = CharTokenizer.from_text(series_corpus())
    torch.manual_seed(0)
    model = LanguageModel(TransformerConfig(tokenizer.vocab_size, block_size=32, n_layers=2, n_heads=4, d_model=32))
    train(model, tokenizer.encode(series_corpus()), TrainingConfig(300, batch_size=16, learning_rate=5e-3, device="cpu"))
    explore(model, tokenizer, "the river bank floods", attention="layers.0.attention", head=1).save(folder / "view.html")
