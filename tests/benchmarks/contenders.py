"""Who takes part: models of one size, with the same data, loss and optimizer, each written and sampled from as its library does it best."""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer_nb import LanguageModel, MultiHeadAttention, TrainingConfig, TransformerConfig, generate
from transformer_nb.attention import causal_mask, scaled_dot_product_attention
from transformer_nb.training import make_trainer, sample_batch

VOCABULARY = 65  # characters


@dataclass(frozen=True)
class Size:
    "What all contenders have in common."

    n_layers: int
    n_heads: int
    d_model: int
    block_size: int  # tokens in a window
    batch_size: int  # windows in a batch

    @property
    def prompt(self) -> int:
        "Tokens that a text begins with; what is written fills the window."
        return self.block_size // 8

    @property
    def config(self) -> TransformerConfig:
        "Our configuration of that size: GPT-2's."
        return TransformerConfig(VOCABULARY, self.block_size, self.n_layers, self.n_heads, self.d_model)


SIZES = {"S": Size(4, 4, 128, 64, 12), "M": Size(6, 6, 384, 256, 16), "one layer": Size(1, 4, 128, 64, 12)}


class Contender:
    "A model that learns and writes. What a library does its own way stands in a subclass."

    package = "torch"  # what has to be installed
    has_cache = True  # whether it keeps keys and values while it writes

    def __init__(
        self,
        size: Size,
        precision: str = "float32",  # or bf16: products in bfloat16, weights in float32
    ):
        torch.manual_seed(0)
        self.size, self.precision = size, precision
        self.model = self.build()
        self.text = torch.randint(VOCABULARY, (100_000,))
        self.prepare()

    def build(self) -> nn.Module:
        "The model."
        raise NotImplementedError

    def logits(self, ids: Tensor) -> Tensor:
        "Indices (B, T) to logits (B, T, V)."
        return self.model(ids)

    def prepare(self) -> None:
        "The optimizer, as nanoGPT has it: AdamW in one fused kernel, gains and biases not decayed."
        self.generator = torch.Generator().manual_seed(0)
        matrices, vectors = ([p for p in self.model.parameters() if (p.dim() > 1) == large] for large in (True, False))
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)

    def train_step(self) -> Tensor:
        "A batch: loss, gradient, a step of the optimizer."
        x, y = sample_batch(self.text, self.size.block_size, self.size.batch_size, self.generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            loss = F.cross_entropy(self.logits(x).flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    @torch.inference_mode()
    def generate(
        self,
        prompt: Tensor,  # indices (T,)
        n: int,  # how many tokens to write
        use_cache: bool,
    ) -> Tensor:
        "The prompt and its most probable continuation; here all is read again for each token."
        text = prompt[None]
        for _ in range(n):
            text = torch.cat((text, self.logits(text)[:, -1].argmax(-1, keepdim=True)), 1)
        return text[0]


class Ours(Contender):
    "The package, as a user of it calls it."

    def build(self) -> nn.Module:
        return LanguageModel(self.size.config)

    def prepare(self) -> None:
        options = dict(
            steps=10**6, batch_size=self.size.batch_size, learning_rate=1e-3, schedule="constant", warmup_steps=0, device="cpu"
        )
        self.built_in = "precision" in {field.name for field in fields(TrainingConfig)}
        if self.built_in:
            options["precision"] = self.precision
        self.trainer = make_trainer(self.model, self.text, TrainingConfig(**options))

    def train_step(self) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16" and not self.built_in):
            return self.trainer.step(0)

    def generate(self, prompt: Tensor, n: int, use_cache: bool) -> Tensor:
        return generate(self.model, prompt, n, temperature=0, use_cache=use_cache)

    @staticmethod
    def attention(size: Size) -> nn.Module:
        "A layer of attention alone."
        return MultiHeadAttention(size.d_model, size.n_heads)


class ListOfHeads(nn.Module):
    "Multi-head attention as chapter 05 begins: a list of heads, each with matrices of its own, and its weights in the open."

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        d_k = d_model // n_heads
        self.heads = nn.ModuleList(nn.ModuleList(nn.Linear(d_model, d_k) for _ in range(3)) for _ in range(n_heads))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, mask: None = None, is_causal: bool = True, cache: None = None) -> Tensor:
        mask = causal_mask(x.shape[1])
        heads = [scaled_dot_product_attention(*(matrix(x) for matrix in head), mask)[0] for head in self.heads]
        return self.out_proj(torch.cat(heads, dim=-1))


class HeadByHead(Contender):
    "Our layers around the attention of chapter 05's first rung."

    has_cache = False

    def build(self) -> nn.Module:
        model = LanguageModel(self.size.config)
        for layer in model.stack.layers:
            layer.attention = self.attention(self.size)
        return model

    @staticmethod
    def attention(size: Size) -> nn.Module:
        "A layer of attention alone."
        return ListOfHeads(size.d_model, size.n_heads)


class TorchEncoder(Contender):
    "PyTorch's own layers, which have no cache."

    has_cache = False

    def build(self) -> nn.Module:
        s = self.size
        layer = nn.TransformerEncoderLayer(
            s.d_model, s.n_heads, 4 * s.d_model, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        model = nn.ModuleDict(
            dict(
                tokens=nn.Embedding(VOCABULARY, s.d_model),
                positions=nn.Embedding(s.block_size, s.d_model),
                stack=nn.TransformerEncoder(layer, s.n_layers, nn.LayerNorm(s.d_model), enable_nested_tensor=False),
            )
        )
        for embedding in (model["tokens"], model["positions"]):
            nn.init.normal_(embedding.weight, std=0.02)
        self.mask = nn.Transformer.generate_square_subsequent_mask(s.block_size)
        return model

    def logits(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        x = self.model["tokens"](ids) + self.model["positions"].weight[:length]
        x = self.model["stack"](x, mask=self.mask[:length, :length], is_causal=True)
        return F.linear(x, self.model["tokens"].weight)


class HuggingFace(Contender):
    "GPT-2 of the transformers library, with the fused kernel."

    package = "transformers"

    def build(self) -> nn.Module:
        from transformers import GPT2Config, GPT2LMHeadModel

        s = self.size
        config = GPT2Config(
            vocab_size=VOCABULARY, n_positions=s.block_size, n_embd=s.d_model, n_layer=s.n_layers, n_head=s.n_heads,
            activation_function="gelu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
            attn_implementation="sdpa",
        )  # fmt: skip
        return GPT2LMHeadModel(config)

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids, use_cache=False).logits

    def generate(self, prompt: Tensor, n: int, use_cache: bool) -> Tensor:
        text, seen = prompt[None], torch.ones(1, len(prompt), dtype=torch.long)
        options = dict(max_new_tokens=n, do_sample=False, use_cache=use_cache, pad_token_id=0)
        return self.model.generate(text, attention_mask=seen, **options)[0]


class XTransformers(Contender):
    "x-transformers with its flash option; it has no biases in attention and none in its norms."

    package = "x_transformers"

    def build(self) -> nn.Module:
        from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

        s = self.size
        layers = Decoder(
            dim=s.d_model, depth=s.n_layers, heads=s.n_heads, attn_dim_head=s.d_model // s.n_heads, attn_flash=True
        )
        model = TransformerWrapper(
            num_tokens=VOCABULARY, max_seq_len=s.block_size, attn_layers=layers, tie_embedding=True, tie_embedding_scale=1.0
        )
        self.writer = AutoregressiveWrapper(model)
        return model

    def generate(self, prompt: Tensor, n: int, use_cache: bool) -> Tensor:
        text = self.writer.generate(prompt[None], n, temperature=0.0, cache_kv=use_cache)
        return torch.cat((prompt, text[0]))


class LitGPT(Contender):
    "litgpt, configured as its Pythia, the nearest that it has to GPT-2: rotary positions on a quarter of each head, an output matrix of its own."

    package = "litgpt"

    def build(self) -> nn.Module:
        from litgpt.config import Config
        from litgpt.generate import base
        from litgpt.model import GPT

        s = self.size
        config = Config(
            n_layer=s.n_layers, n_head=s.n_heads, n_embd=s.d_model, block_size=s.block_size, vocab_size=VOCABULARY,
            padded_vocab_size=VOCABULARY, parallel_residual=False, bias=True, rotary_percentage=0.25,
        )  # fmt: skip
        self.write, model = base.generate, GPT(config)
        model.apply(model._init_weights)
        return model

    def generate(self, prompt: Tensor, n: int, use_cache: bool) -> Tensor:
        if not use_cache:
            return super().generate(prompt, n, use_cache)
        if self.model.mask_cache is None:
            self.model.set_kv_cache(batch_size=1)
        return self.write(self.model, prompt, len(prompt) + n, temperature=0.0, top_p=0.0, include_prompt=True)


CONTENDERS = {
    "ours": Ours,
    "Hugging Face": HuggingFace,
    "x-transformers": XTransformers,
    "litgpt": LitGPT,
    "torch.nn": TorchEncoder,
    "head by head": HeadByHead,
}


def scatter_weights(
    model: nn.Module,
) -> None:
    "Weights so large that the most probable text wanders about, where an untrained model would repeat one token."
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[-1]))


def flops(
    size: Size,
    batch: int,  # texts
    length: int,  # tokens in each of them
    backward: bool = True,  # whether the gradient is computed too, at twice the price
) -> int:
    "Operations of a step: two for each weight and token, and the products of queries, keys, weights and values over whole windows."
    weights = 12 * size.n_layers * size.d_model**2 + VOCABULARY * size.d_model
    attention = 2 * size.n_layers * length * size.d_model
    return 2 * (3 if backward else 1) * batch * length * (weights + attention)


def check_sizes(
    counts: dict[str, int],  # parameters of each contender
) -> None:
    "A ValueError where one is more than 2 % larger or smaller than ours."
    for name, count in counts.items():
        if abs(count / counts["ours"] - 1) > 0.02:
            raise ValueError(f"{name} has {count:,} parameters where ours has {counts['ours']:,}: no fair comparison")
