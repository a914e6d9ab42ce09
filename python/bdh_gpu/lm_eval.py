"""BDH models for lm-evaluation-harness, in its own process: no server, no torch.

    python -m bdh_gpu.lm_eval run --model bdh-gpu --model_args pretrained=PATH,device=cpu --tasks TASK

is the harness's command line with the model bdh-gpu beside its own: its registry finds models by
import only. In Python, importing this module registers the model:

    import bdh_gpu.lm_eval, lm_eval
    lm_eval.simple_evaluate(model="bdh-gpu", model_args="pretrained=PATH", tasks=["TASK"])

Results are those of local-completions against `bdh-gpu serve`.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

# First: the harness registers its own models only if the registry is empty.
import lm_eval.models  # noqa: F401
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
from tqdm import tqdm

from . import _native
from ._place import Source

__all__ = ["BDHLM"]

_logger = logging.getLogger(__name__)

# Prompts that are given to the device together.
_TOGETHER = 256


@register_model("bdh-gpu")
class BDHLM(TemplateLM):
    """The model bdh-gpu of lm-evaluation-harness. Its arguments, all optional:

    pretrained: a directory, a weights file or a name on the Hugging Face Hub; without it, the
    embedded model. device, threads, weights, state_dtype, tokenizer, rope, dtype: as for
    BDH.from_pretrained. context, forget_tau, window: as for generating.

    max_length (2048): longer texts are scored in windows, and longer contexts lose their beginning, as
    with local-completions. A BDH has no limit of its own. max_gen_toks (256), seed (1234): for tasks
    that do not say it. prefix_token_id: what a text without context is read after; by default what an
    empty prompt stands for. chat_template: a file in Jinja, instead of the model's own.
    """

    def __init__(
        self,
        pretrained: Optional[str] = None,
        device: Union[str, int, None] = None,
        threads: Optional[int] = None,
        context: Union[int, str, None] = None,
        forget_tau: Optional[float] = None,
        window: Optional[int] = None,
        max_length: int = 2048,
        max_gen_toks: int = 256,
        seed: int = 1234,
        prefix_token_id: Optional[int] = None,
        chat_template: Optional[str] = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        **model_args: Any,
    ) -> None:
        super().__init__()
        if int(max_length) < 3:
            raise ValueError(f"max_length must be at least 3, got {max_length}")
        source = Source.of(pretrained, "auto" if device is None else device, threads, model_args)
        self.model = source.load()
        # The device takes as many prompts together as it gains from.
        del batch_size, max_batch_size
        self._options = {"context": context, "forget_tau": forget_tau, "window": window}
        # As local-completions counts: one token is for generating.
        self.max_length = int(max_length) - 1
        self._max_gen_toks = int(max_gen_toks)
        self._seed = int(seed)
        self._prefix = prefix_token_id
        self._name = self.model.name if pretrained is None else str(pretrained)
        self._template, self._bos, self._eos = self.model._chat()
        beside = None if pretrained is None else Path(pretrained) / "chat_template.jinja"
        if chat_template is not None:
            self._template = Path(chat_template).read_text(encoding="utf-8")
        elif beside is not None and beside.is_file():
            self._template = beside.read_text(encoding="utf-8")
        self._warned: set[str] = set()

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Optional[dict] = None) -> "BDHLM":
        """From "key=value,key=value" and what the harness adds."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict, additional_config: Optional[dict] = None) -> "BDHLM":
        """From arguments and what the harness adds. Its command line adds device=cuda:0 if no device is
        given: that is no choice, and the model's own argument comes first.
        """
        added = {name: value for name, value in (additional_config or {}).items() if value is not None}
        if str(added.get("device", "")).split(":")[0] in ("cuda", "mps"):
            del added["device"]
        return cls(**{**added, **arg_dict})

    # Tokens.

    @property
    def eot_token_id(self) -> Optional[int]:
        """The token that ends a text, if the model names one."""
        return next(iter(self.model.config["eos_token_ids"]), None)

    @property
    def prefix_token_id(self) -> int:
        """The token that a text without context is read after."""
        return self.model._default_prompt()[0] if self._prefix is None else self._prefix

    def tok_encode(self, string: str, add_special_tokens: Optional[bool] = None, **kwargs: Any) -> list[int]:
        """Token ids of a text; no special ones are added."""
        return self.model.encode(string)

    # Likelihoods.

    def _loglikelihood_tokens(
        self, requests: list, disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        results = []
        for key, context, continuation in tqdm(requests, disable=disable_tqdm, desc="Scoring"):
            tokens = context + continuation
            before = len(context) - max(0, len(tokens) - self.max_length)
            if before < 1:
                raise ValueError(
                    f"a continuation has {len(continuation)} tokens, of which none could be predicted "
                    f"within {self.max_length}; give a larger max_length"
                )
            result = self._score(tokens[-self.max_length :], before)
            results.append(result)
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, result)
        return results

    def _score(self, tokens: list[int], before: int) -> tuple[float, bool]:
        """Log-likelihood of the tokens after the first `before`, and whether each is the likeliest."""
        if len(tokens) == before:
            return 0.0, True
        score = self.model.score(tokens, **self._options)
        return sum(score.logprobs[before:]), all(score.greedy[before:])

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows of max_length."""
        results = []
        for (text,) in tqdm([request.args for request in requests], disable=disable_tqdm, desc="Scoring"):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
            parts = [(None, *make_disjoint_window(window)) for window in windows]
            total = float(sum(score for score, _ in self._loglikelihood_tokens(parts, disable_tqdm=True)))
            results.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return results

    # Texts.

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
        """Continuations, each up to its task's stops and length."""
        results: list[Optional[str]] = [None] * len(requests)
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Generating") as bar:
            for numbers in groups.values():
                options = self._generation(requests[numbers[0]].args[1])
                for start in range(0, len(numbers), _TOGETHER):
                    part = numbers[start : start + _TOGETHER]
                    prompts = [self._prompt(requests[number].args[0], options) for number in part]
                    for place, _, text, _, _, _, _, failure in self.model._complete(prompts, **options):
                        if failure is not None:
                            raise _native.BDHError(failure)
                        context, given = requests[part[place]].args[:2]
                        results[part[place]] = text
                        self.cache_hook.add_partial("generate_until", (context, given), text)
                    bar.update(len(part))
        return [text for text in results if text is not None]

    def _prompt(self, context: str, options: Mapping[str, Any]) -> list[int]:
        """A context's tokens; the beginning of a long one is cut off."""
        room = self.max_length - options["max_new_tokens"]
        if room < 1:
            raise ValueError(
                f"a task wants {options['max_new_tokens']} tokens, which leaves no room for a context; "
                "give a larger max_length"
            )
        return self.tok_encode(context)[-room:]

    def _generation(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A task's options by this package's names."""
        given = dict(given)
        # local-completions leaves it out too: temperature says it.
        given.pop("do_sample", None)
        lengths = [given.pop(name, None) for name in ("max_tokens", "max_gen_toks", "max_new_tokens")]
        length = next((length for length in lengths if length is not None), self._max_gen_toks)
        options = {
            "max_new_tokens": int(length),
            "temperature": given.pop("temperature", 0),
            "stop": [text for text in handle_stop_sequences(given.pop("until", None), None) if text],
            "seed": given.pop("seed", self._seed),
            "num_return_sequences": 1,
            **self._options,
        }
        known = {name for name, _ in _native._keywords}
        for name, value in given.items():
            if name in known:
                options[name] = value
            elif name not in self._warned:
                self._warned.add(name)
                _logger.warning("the generation option %s is unknown to bdh-gpu and has no effect", name)
        return options

    # Conversations.

    @property
    def tokenizer_name(self) -> str:
        """What tells requests that are cached with --cache_requests from those of other models."""
        return f"bdh-gpu__{self._name}".replace("/", "__").replace(os.sep, "__")

    def chat_template(self, chat_template: Union[bool, str] = False) -> Optional[str]:
        """The template, if conversations are to have one."""
        if isinstance(chat_template, str):
            raise ValueError(
                f"a BDH has one chat template, none with a name such as {chat_template!r}; leave the name "
                "out, or give chat_template=FILE in the model's arguments"
            )
        return self._needed_template() if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as one text, by the model's template."""
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = refuse
        return environment.from_string(self._needed_template()).render(
            messages=chat_history,
            bos_token=self._bos,
            eos_token=self._eos,
            add_generation_prompt=add_generation_prompt,
        )

    def _needed_template(self) -> str:
        if self._template is None:
            raise ValueError(
                "the model has no chat template; evaluate without --apply_chat_template, or give "
                "chat_template=FILE in the model's arguments"
            )
        return self._template

    def get_model_info(self) -> dict[str, Any]:
        """For the results."""
        return {
            "model_num_parameters": self.model.config["parameters"],
            "model_dtype": self.model.weights,
            "model_device": self.model.device,
            "bdh_gpu_version": _native.__version__,
        }


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
