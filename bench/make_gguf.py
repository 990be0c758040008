"""Writes GGUF models of a given shape with random weights, for llama.cpp to be timed on: what they say means nothing.

    python make_gguf.py dense_q4_0|dense_q4_k|hybrid_q4_0 FILE

dense_q4_0   Qwen2.5-0.5B: 24 layers, 896 wide, 14 query and 2 K/V heads of 64, vocabulary 151,936, Q4_0, tied embedding in Q8_0
             (what llama.cpp's own quantiser makes of it)
dense_q4_k   the same with Q4_K where its blocks of 256 divide a row, which is down_proj alone
hybrid_q4_0  llama.cpp's qwen35 graph (Gated DeltaNet, every fourth layer full attention with an output gate) at the sizes of
             sala-coder-0.5b: 24 layers, 896 wide, 14 heads of 64, vocabulary 32,768
"""

import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, quants

N_LAYERS, HIDDEN, MLP, N_HEADS, N_KV_HEADS, HEAD_DIM = 24, 896, 4864, 14, 2, 64
Q4_K_BLOCK_BYTES = 144


class Model:
    def __init__(self, file, arch, vocab_size):
        self.random = np.random.default_rng(1)
        self.made = {}
        self.writer = writer = GGUFWriter(file, arch)
        writer.add_block_count(N_LAYERS)
        writer.add_context_length(131072)
        writer.add_embedding_length(HIDDEN)
        writer.add_feed_forward_length(MLP)
        writer.add_head_count(N_HEADS)
        writer.add_head_count_kv(N_KV_HEADS)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(1e6)
        writer.add_vocab_size(vocab_size)
        writer.add_tokenizer_model("none")
        self.matrix("token_embd", vocab_size, HIDDEN, Type.Q8_0)
        self.norm("output_norm", HIDDEN)

    def matrix(self, name, rows, columns, form=Type.Q4_0):
        """Matrices of one shape hold the same numbers: making them is what takes time here."""
        key = (rows, columns, form)
        if key not in self.made:
            self.made[key] = self.q4_k(rows, columns) if form == Type.Q4_K else quants.quantize(self.numbers(rows, columns), form)
        self.writer.add_tensor(f"{name}.weight", self.made[key], raw_dtype=form)

    def numbers(self, *shape):
        return self.random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)

    def q4_k(self, rows, columns):
        """Blocks of two fp16 scales, 12 bytes of 6-bit scales and 128 bytes of nibbles; gguf has no encoder for them."""
        assert columns % 256 == 0
        blocks = self.random.integers(0, 256, (rows, columns // 256, Q4_K_BLOCK_BYTES), dtype=np.uint8)
        # d and dmin: with scales around 32 and nibbles around 8 the weights come out around 0.02.
        blocks[:, :, 0:4] = np.array([1e-4, 5e-4], dtype=np.float16).view(np.uint8)
        return blocks.reshape(rows, -1)

    def norm(self, name, size):
        self.vector(f"{name}.weight", np.ones(size, dtype=np.float32))

    def vector(self, name, values):
        self.writer.add_tensor(name, values)

    def mlp(self, block, down=Type.Q4_0):
        self.matrix(f"{block}.ffn_gate", MLP, HIDDEN)
        self.matrix(f"{block}.ffn_up", MLP, HIDDEN)
        self.matrix(f"{block}.ffn_down", HIDDEN, MLP, down)

    def write(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def dense(file, down):
    model = Model(file, "qwen2", 151936)
    kv = N_KV_HEADS * HEAD_DIM
    for layer in range(N_LAYERS):
        block = f"blk.{layer}"
        model.norm(f"{block}.attn_norm", HIDDEN)
        for name, rows in (("attn_q", HIDDEN), ("attn_k", kv), ("attn_v", kv)):
            model.matrix(f"{block}.{name}", rows, HIDDEN)
            model.vector(f"{block}.{name}.bias", model.numbers(rows))
        model.matrix(f"{block}.attn_output", HIDDEN, HIDDEN)
        model.norm(f"{block}.ffn_norm", HIDDEN)
        model.mlp(block, down)
    model.write()


def hybrid(file):
    model = Model(file, "qwen35", 32768)
    writer = model.writer
    width, kv = N_HEADS * HEAD_DIM, N_KV_HEADS * HEAD_DIM
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_dimension_sections([11, 11, 10, 0])
    writer.add_full_attention_interval(4)
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(width)
    writer.add_ssm_state_size(HEAD_DIM)
    writer.add_ssm_time_step_rank(N_HEADS)
    writer.add_ssm_group_count(N_HEADS)
    for layer in range(N_LAYERS):
        block = f"blk.{layer}"
        model.norm(f"{block}.attn_norm", HIDDEN)
        model.norm(f"{block}.post_attention_norm", HIDDEN)
        if layer % 4 == 3:
            model.matrix(f"{block}.attn_q", 2 * width, HIDDEN)
            model.matrix(f"{block}.attn_k", kv, HIDDEN)
            model.matrix(f"{block}.attn_v", kv, HIDDEN)
            model.matrix(f"{block}.attn_output", HIDDEN, width)
            model.norm(f"{block}.attn_q_norm", HEAD_DIM)
            model.norm(f"{block}.attn_k_norm", HEAD_DIM)
        else:
            model.matrix(f"{block}.attn_qkv", 3 * width, HIDDEN)
            model.matrix(f"{block}.attn_gate", width, HIDDEN)
            model.vector(f"{block}.ssm_conv1d.weight", model.numbers(3 * width, 4))
            model.vector(f"{block}.ssm_dt.bias", model.numbers(N_HEADS))
            model.vector(f"{block}.ssm_a", -np.linspace(0.01, 4, N_HEADS, dtype=np.float32))
            model.matrix(f"{block}.ssm_alpha", N_HEADS, HIDDEN)
            model.matrix(f"{block}.ssm_beta", N_HEADS, HIDDEN)
            model.norm(f"{block}.ssm_norm", HEAD_DIM)
            model.matrix(f"{block}.ssm_out", HIDDEN, width)
        model.mlp(block)
    model.write()


if __name__ == "__main__":
    kind, file = sys.argv[1:]
    if kind == "hybrid_q4_0":
        hybrid(file)
    else:
        dense(file, {"dense_q4_0": Type.Q4_0, "dense_q4_k": Type.Q4_K}[kind])
