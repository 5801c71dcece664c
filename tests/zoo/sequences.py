"""Text, speech, time series: transformers, recurrent nets, and 1-D convolutions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo.entry import images, rows, series, tokens, zoo

__all__: list[str] = []

TEXT = tokens(9, 16, 12)
"""Token ids and masks of varying length."""
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
"""Sizes of a small encoder, as most configurations of transformers call them."""

# --- transformers


def hf(model: str, config: str, **options: Any) -> nn.Module:
    """A model of transformers from its configuration, without weights to download."""
    import transformers

    settings = getattr(transformers, config)(**options)
    module: nn.Module = getattr(transformers, model)(settings)
    return module


@zoo("transformers", TEXT, fast=True)
def bert() -> nn.Module:
    return hf("BertModel", "BertConfig", vocab_size=100, max_position_embeddings=64, **SMALL)


@zoo("transformers", TEXT)
def bert_classifier() -> nn.Module:
    options = {"vocab_size": 100, "max_position_embeddings": 64, "attn_implementation": "eager", **SMALL}
    return hf("BertForSequenceClassification", "BertConfig", **options)


@zoo("transformers", TEXT)
def distilbert() -> nn.Module:
    return hf("DistilBertForTokenClassification", "DistilBertConfig", vocab_size=100, dim=32, n_layers=2, n_heads=2,
              hidden_dim=64, max_position_embeddings=64)  # fmt: skip


@zoo("transformers", TEXT)
def roberta() -> nn.Module:
    return hf("RobertaForMaskedLM", "RobertaConfig", vocab_size=100, max_position_embeddings=64, **SMALL)


@zoo("transformers", TEXT)
def albert() -> nn.Module:
    return hf("AlbertModel", "AlbertConfig", vocab_size=100, embedding_size=16, max_position_embeddings=64, **SMALL)


@zoo("transformers", TEXT)
def deberta_v2() -> nn.Module:
    return hf("DebertaV2Model", "DebertaV2Config", vocab_size=100, max_position_embeddings=64, relative_attention=True,
              pos_att_type=["c2p", "p2c"], position_buckets=16, **SMALL)  # fmt: skip


@zoo("transformers", TEXT)
def mpnet() -> nn.Module:
    return hf("MPNetModel", "MPNetConfig", vocab_size=100, max_position_embeddings=64, **SMALL)


@zoo("transformers", tokens(9, 16, 12, mask=False))
def gpt2() -> nn.Module:
    return hf("GPT2LMHeadModel", "GPT2Config", vocab_size=100, n_embd=32, n_layer=2, n_head=2, n_positions=64,
              use_cache=False)  # fmt: skip


@zoo("transformers", TEXT)
def llama() -> nn.Module:
    return hf("LlamaForCausalLM", "LlamaConfig", vocab_size=100, num_key_value_heads=1, use_cache=False, **SMALL)


@zoo("transformers", TEXT)
def qwen3() -> nn.Module:
    return hf("Qwen3ForCausalLM", "Qwen3Config", vocab_size=100, num_key_value_heads=1, head_dim=16, use_cache=False,
              **SMALL)  # fmt: skip


@zoo("transformers", tokens(9, 16, 12, mask=False))
def mamba() -> nn.Module:
    return hf("MambaModel", "MambaConfig", vocab_size=100, hidden_size=32, num_hidden_layers=2, state_size=4,
              use_cache=False)  # fmt: skip


def pairs_of_texts() -> list[dict[str, Tensor]]:
    """What goes into an encoder and a decoder."""
    return [
        {
            "input_ids": torch.randint(3, 100, (size, n)),
            "attention_mask": torch.ones(size, n, dtype=torch.int64),
            "decoder_input_ids": torch.randint(3, 100, (size, m)),
        }
        for size, n, m in ((4, 9, 7), (4, 16, 5), (3, 12, 11))
    ]


@zoo("transformers", pairs_of_texts)
def t5() -> nn.Module:
    return hf("T5ForConditionalGeneration", "T5Config", vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=2,
              num_heads=2, use_cache=False)  # fmt: skip


def labelled_texts() -> list[dict[str, Tensor]]:
    """As a collator makes them for training: a label for each token."""
    return [
        {
            "input_ids": torch.randint(3, 100, (size, n)),
            "attention_mask": torch.ones(size, n, dtype=torch.int64),
            "labels": torch.randint(3, 100, (size, n)),
        }
        for size, n in ((4, 9), (4, 16), (3, 12))
    ]


@zoo("transformers", labelled_texts)
def t5_with_labels() -> nn.Module:
    """Its decoder reads the labels, shifted by an assignment to a slice; the loss is among the outputs."""
    return hf("T5ForConditionalGeneration", "T5Config", vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=2,
              num_heads=2, use_cache=False, pad_token_id=0, decoder_start_token_id=0)  # fmt: skip


@zoo("transformers", labelled_texts)
def llama_with_labels() -> nn.Module:
    """The labels are no inputs of an export, since the logits need none."""
    return hf("LlamaForCausalLM", "LlamaConfig", vocab_size=100, num_key_value_heads=1, use_cache=False, **SMALL)


@zoo("transformers", pairs_of_texts)
def bart() -> nn.Module:
    return hf("BartModel", "BartConfig", vocab_size=100, d_model=32, encoder_layers=1, decoder_layers=1,
              encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
              max_position_embeddings=64, use_cache=False)  # fmt: skip


@zoo("transformers", lambda: [{"input_features": torch.randn(n, 8, 100)} for n in (4, 4, 3)])
def whisper_encoder() -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder(WhisperConfig(d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64,
                                        num_mel_bins=8, max_source_positions=50))  # fmt: skip


@zoo("transformers", lambda: [{"input_values": torch.randn(n, t)} for n, t in ((4, 1600), (4, 2400), (3, 2000))])
def wav2vec2() -> nn.Module:
    return hf("Wav2Vec2ForCTC", "Wav2Vec2Config", vocab_size=20, conv_dim=(16, 16, 16), conv_stride=(5, 4, 2),
              conv_kernel=(10, 8, 4), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, **SMALL)  # fmt: skip


@zoo("transformers", lambda: [{"pixel_values": torch.randn(n, 3, 64, 64)} for n in (4, 4, 3)])
def segformer() -> nn.Module:
    return hf("SegformerForSemanticSegmentation", "SegformerConfig", depths=[1, 1], num_encoder_blocks=2,
              hidden_sizes=[16, 32], num_attention_heads=[1, 2], sr_ratios=[4, 2], patch_sizes=[7, 3], strides=[4, 2],
              mlp_ratios=[2, 2], decoder_hidden_size=16)  # fmt: skip


@zoo("transformers", lambda: [{"pixel_values": torch.randn(n, 3, 56, 56)} for n in (4, 4, 3)])
def dinov2() -> nn.Module:
    return hf("Dinov2Model", "Dinov2Config", image_size=56, patch_size=14, hidden_size=32, num_hidden_layers=2,
              num_attention_heads=2)  # fmt: skip


def texts_and_images() -> list[dict[str, Tensor]]:
    """As many texts as images."""
    return [
        {"input_ids": torch.randint(3, 99, (n, t)), "pixel_values": torch.randn(n, 3, 32, 32)}
        for n, t in ((4, 9), (4, 7), (3, 12))
    ]


@zoo("transformers", texts_and_images)
def clip() -> nn.Module:
    text = {**SMALL, "vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 99}
    return hf("CLIPModel", "CLIPConfig", text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 8},
              projection_dim=16)  # fmt: skip


@zoo("transformers", lambda: [{"past_values": torch.randn(n, 64, 3)} for n in (4, 4, 3)])
def patchtst() -> nn.Module:
    return hf("PatchTSTForPrediction", "PatchTSTConfig", num_input_channels=3, context_length=64, patch_length=8,
              patch_stride=8, prediction_length=8, d_model=32, num_hidden_layers=2, num_attention_heads=2,
              ffn_dim=64)  # fmt: skip


# --- recurrent


class Recurrent(nn.Module):
    """The last state of a recurrent net, and the state itself."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.net = kind(8, 16, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Any:
        y, state = self.net(x)
        return self.head(y[:, -1]), state


@zoo("own", series(12, 12, 12, channels=8, last=False))
def lstm() -> nn.Module:
    return Recurrent(nn.LSTM)


@zoo("own", series(12, 12, 12, channels=8, last=False))
def gru() -> nn.Module:
    return Recurrent(nn.GRU)


@zoo("own", series(12, 7, 10, channels=8, last=False))
def lstm_over_varying_time() -> nn.Module:
    return Recurrent(nn.LSTM)


class Tagger(nn.Module):
    """A class for each token, from both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        self.net = nn.LSTM(16, 16, 2, batch_first=True, bidirectional=True, dropout=0.3)
        self.head = nn.Linear(32, 5)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.net(self.embedding(input_ids))[0])


@zoo("own", lambda: [{"input_ids": torch.randint(1, 100, (4, n))} for n in (9, 16, 12)], fast=True)
def bilstm_tagger() -> nn.Module:
    return Tagger()


class SpeechGru(nn.Module):
    """Characters of a spectrogram: convolutions that halve the time, then GRUs in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(20, 32, 5, 2, 2), nn.BatchNorm1d(32), nn.ReLU())
        self.net = nn.GRU(32, 24, 3, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 29)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(self.front(x).transpose(1, 2))[0]).log_softmax(-1)


@zoo("own", lambda: [{"x": torch.randn(n, 20, t)} for n, t in ((4, 80), (4, 57), (3, 66))])
def speech_gru() -> nn.Module:
    return SpeechGru()


class ConvLstm(nn.Module):
    """Video in, next frame out."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(3 + 8, 32, 3, padding=1)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 8, *x.shape[3:])
        for frame in x.unbind(1):
            i, f, g, o = self.gates(torch.cat([frame, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)


@zoo("own", rows((4, 3, 16, 16)))
def conv_lstm() -> nn.Module:
    return ConvLstm()


# --- convolutions over time


class WaveNet(nn.Module):
    """Causal dilated convolutions with gates and skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 16, 1)
        self.gated = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**i) for i in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4))
        self.last = nn.Conv1d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out = torch.zeros_like(x)
        for gated, skip in zip(self.gated, self.skips):
            a, b = gated(F.pad(x, (gated.dilation[0], 0))).chunk(2, 1)
            y = skip(a.tanh() * b.sigmoid())
            x, out = x + y, out + y
        return self.last(out.relu())


@zoo("own", series(100, 160, 128), fast=True)
def wavenet() -> nn.Module:
    return WaveNet()


class Codec(nn.Module):
    """Encoder and decoder of sound; the decoder goes up with transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, 8, 10, 5), nn.GroupNorm(2, 8), nn.GELU(), nn.Conv1d(8, 16, 4, 2), nn.BatchNorm1d(16), nn.ELU()
        )
        self.decoder = nn.Sequential(nn.ConvTranspose1d(16, 8, 4, 2), nn.ELU(), nn.ConvTranspose1d(8, 1, 10, 5))

    def forward(self, x: Tensor) -> Any:
        codes = self.encoder(x)
        return self.decoder(codes), codes


@zoo("own", series(400, 640, 523))
def audio_codec() -> nn.Module:
    return Codec()


class Spectrogram(nn.Module):
    """Short-time Fourier transform, logarithm, and a net over it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64), persistent=False)
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 64, 32, window=self.window, return_complex=True).abs()
        return self.head(self.net(torch.log1p(spectrum).unsqueeze(1)).flatten(1))


@zoo("own", rows((640,)))
def keyword_spotting() -> nn.Module:
    return Spectrogram()


class Separator(nn.Module):
    """Conv-TasNet: masks over learned features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv1d(1, 32, 16, 8, bias=False), nn.ConvTranspose1d(32, 1, 16, 8, bias=False)
        layers = [
            nn.Sequential(
                nn.Conv1d(32, 32, 3, padding=2**i, dilation=2**i, groups=32), nn.PReLU(), nn.GroupNorm(1, 32),
                nn.Conv1d(32, 32, 1),
            )
            for i in range(3)
        ]  # fmt: skip
        self.masks = nn.Sequential(*layers, nn.Conv1d(32, 64, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        masks = self.masks(features).unflatten(1, (2, 32))
        return self.decoder((masks * features.unsqueeze(1)).flatten(0, 1)).unflatten(0, (-1, 2))


@zoo("own", series(800, 800, 800))
def speech_separation() -> nn.Module:
    return Separator()


# --- attention people write themselves


class Encoder(nn.Module):
    """PyTorch's transformer with a padding mask."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.net(x, src_key_padding_mask=mask)


def masked_rows() -> list[dict[str, Tensor]]:
    """Vectors, and True where they are padding."""
    return [
        {"x": torch.randn(n, t, 32), "mask": torch.arange(t) >= torch.randint(2, t, (n, 1))}
        for n, t in ((4, 7), (4, 12), (3, 9))
    ]


@zoo("own", masked_rows, fast=True)
def transformer_encoder() -> nn.Module:
    return Encoder()


class Translator(nn.Module):
    """Encoder, decoder with a causal mask, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.net = nn.Transformer(32, 2, 1, 1, 64, batch_first=True)
        self.out = nn.Linear(32, 50, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, source: Tensor, target_ids: Tensor) -> Tensor:
        n = target_ids.shape[1]
        causal = torch.ones(n, n, device=source.device).triu(1).bool()
        return self.out(self.net(self.embed(source), self.embed(target_ids), tgt_mask=causal))


@zoo("own", lambda: [
    (torch.randint(0, 50, (n, s)), torch.randint(0, 50, (n, t))) for n, s, t in ((4, 7, 5), (4, 12, 9), (3, 9, 8))
])  # fmt: skip
def translator_with_tied_weights() -> nn.Module:
    return Translator()


class Experts(nn.Module):
    """Mixture of experts: each row goes to its best expert."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 4)
        self.experts = nn.Parameter(torch.randn(4, 16, 16) / 4)

    def forward(self, x: Tensor) -> Tensor:
        weight, index = self.router(x).softmax(-1).topk(2, -1)
        every = torch.einsum("btd,edf->btef", x, self.experts)
        chosen = every.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, every.shape[-1]))
        return x + (chosen * weight.unsqueeze(-1)).sum(2)


@zoo("own", series(7, 12, 9, channels=16, last=False))
def mixture_of_experts() -> nn.Module:
    return Experts()


class NBeats(nn.Module):
    """Forecasting by residual stacks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 30)) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        forecast = x.new_zeros(x.shape[0], 6)
        for layer in self.blocks:
            back, ahead = layer(x).split([24, 6], 1)
            x, forecast = x - back, forecast + ahead
        return forecast, x


@zoo("own", rows((24,)))
def nbeats() -> nn.Module:
    return NBeats()


class Fourier(nn.Module):
    """Fourier neural operator: complex numbers inside, real ones outside."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.drop = nn.Linear(1, 8), nn.Linear(8, 1)
        self.real, self.imag = nn.Parameter(torch.randn(8, 8, 6) / 8), nn.Parameter(torch.randn(8, 8, 6) / 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x.unsqueeze(-1)).transpose(1, 2)
        modes = torch.fft.rfft(h)[..., :6]
        a, b = modes.real, modes.imag
        real = torch.einsum("bim,iom->bom", a, self.real) - torch.einsum("bim,iom->bom", b, self.imag)
        imag = torch.einsum("bim,iom->bom", a, self.imag) + torch.einsum("bim,iom->bom", b, self.real)
        y = torch.fft.irfft(torch.complex(real, imag), n=x.shape[-1])
        return self.drop((h + y).transpose(1, 2)).squeeze(-1)


@zoo("own", rows((32,)), refused="lowering fixed the dynamic dimension 0 of input x at 4")
def fourier_operator() -> nn.Module:
    return Fourier()


class Ocr(nn.Module):
    """Convolutions over a line of text of any width, a sequence of characters out."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.out = nn.Linear(32 * 4, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.net(x).flatten(1, 2).transpose(1, 2)).log_softmax(-1)


@zoo("own", images((16, 64), (16, 100), (16, 83), channels=1))
def ocr() -> nn.Module:
    return Ocr()
