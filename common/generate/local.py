"""Generation with transformers on this machine: length-sorted static batches, left padding, per-row seeds."""

import torch
from transformers import (
    AutoModelForCausalLM, GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList,
    TemperatureLogitsWarper, TopPLogitsWarper,
)

from common.files import model_id
from common.generate import cut_at_stop
from common.model import load_tokenizer, local_folder


class SeededSampling(LogitsProcessor):
    """Draw each row's next token with that row's own random numbers, then leave only that token.

    So a row's text does not depend on which rows share its batch, on their order or on a resume, which torch's one
    global generator cannot give. uniforms: [B, max_new_tokens] in [0, 1).
    """

    def __init__(self, uniforms, prompt_length):
        self.uniforms, self.prompt_length = uniforms, prompt_length

    def __call__(self, input_ids, scores):
        cdf = torch.softmax(scores.double(), dim=-1).cumsum(dim=-1)
        drawn = self.uniforms[:, input_ids.shape[1] - self.prompt_length, None] * cdf[:, -1:]
        token = torch.searchsorted(cdf, drawn, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -float("inf")).scatter(1, token, 0.0)


class StopStrings(StoppingCriteria):
    """End a row once its newest text holds a stop string.

    transformers' own criterion reads the vocabulary and fails on tokenizers that are not byte- or character-complete;
    decoding the tail of each row works for all. A stop string of n characters spans at most n tokens.
    """

    def __init__(self, stop, tokenizer, prompt_length):
        self.stop, self.tokenizer, self.prompt_length = stop, tokenizer, prompt_length
        self.tail = max(map(len, stop)) + 1

    def __call__(self, input_ids, scores, **unused):
        tails = self.tokenizer.batch_decode(input_ids[:, max(self.prompt_length, input_ids.shape[1] - self.tail) :])
        return torch.tensor([any(s in t for s in self.stop) for t in tails], device=input_ids.device)


class Local:
    """Engine over a Hugging Face folder or hub id, for raw text prompts."""

    def __init__(self, model, batch_size=32):
        folder = local_folder(model)
        self.identity = model_id(folder)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        self.batch_size = batch_size
        self.tokenizer = load_tokenizer(folder)
        self.tokenizer.padding_side = "left"
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=self.dtype).to(self.device).eval()

    def approve(self, tasks, journal):
        """Costs nothing."""

    def outstanding(self):
        return False

    def status(self):
        return ""

    def generate(self, tasks, deliver, show=lambda: None):
        """deliver(task, answer) for each task that is not settled. Batches are cut from all tasks and skipped when all is
        done, so that a resumed run meets the same batches and, in bfloat16 too, the same text."""
        order = sorted(tasks, key=lambda task: (-len(task.request.prompt), task.key))
        for at in range(0, len(order), self.batch_size):
            batch = order[at : at + self.batch_size]
            if not all(task.settled for task in batch):
                answers = self._batch([task.request.prompt for task in batch], [task.key for task in batch], batch[0].sampling)
                for task, answer in zip(batch, answers):
                    if not task.settled:
                        deliver(task, answer)
                show()

    @torch.inference_mode()
    def _batch(self, prompts, keys, sampling):
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True).to(self.device)
        n_prompt = inputs.input_ids.shape[1]
        processors = LogitsProcessorList()
        if sampling.temperature > 0:
            rows = [torch.Generator().manual_seed(int(key[:15], 16)) for key in keys]
            uniforms = torch.stack([torch.rand(sampling.max_new_tokens, generator=g, dtype=torch.double) for g in rows])
            top_p = [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
            processors.extend([TemperatureLogitsWarper(sampling.temperature), *top_p,
                               SeededSampling(uniforms.to(self.device), n_prompt)])
        output = self.model.generate(
            **inputs, generation_config=self._config(sampling), logits_processor=processors,
            stopping_criteria=StoppingCriteriaList(
                [StopStrings(sampling.stop, self.tokenizer, n_prompt)] if sampling.stop else []),
        )
        return [self._answer(ids, mask, sampling)
                for ids, mask in zip(output[:, n_prompt:].tolist(), inputs.attention_mask.tolist())]

    def _end_ids(self, stop):
        """What ends a text: the model's own stop tokens, and each stop string that is one token of its vocabulary."""
        own = self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id
        own = own if isinstance(own, list) else [own]
        vocabulary = self.tokenizer.get_vocab()
        return sorted({i for i in own if i is not None} | {vocabulary[s] for s in stop if s in vocabulary})

    def _config(self, sampling):
        return GenerationConfig(do_sample=False, max_new_tokens=sampling.max_new_tokens,
                                eos_token_id=self._end_ids(sampling.stop), pad_token_id=self.tokenizer.pad_token_id)

    def _answer(self, ids, mask, sampling):
        ends = set(self._end_ids(sampling.stop))
        n = next((at for at, i in enumerate(ids) if i in ends), len(ids))
        text = self.tokenizer.decode(ids[:n], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        text, stopped = cut_at_stop(text, sampling.stop)
        # A row that met a stop string early is padded while the rest of the batch goes on, and pad may be no end token.
        return {"text": text, "finish_reason": "stop" if stopped or n < len(ids) else "length",
                "usage": {"prompt_tokens": sum(mask), "completion_tokens": min(n + 1, len(ids))}}
