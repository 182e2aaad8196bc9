"""The language model evaluation harness (EleutherAI's lm_eval) on models of this runtime.

    python -m allmem_edge.lm_eval run --model allmem --model_args pretrained=DIRECTORY --tasks arc_easy

or, in Python, `import allmem_edge.lm_eval` and then `lm_eval.simple_evaluate(model="allmem", ...)`. Needs
`pip install 'allmem-edge[lm-eval]'`. Requests that begin alike share the reading of that beginning: sessions
are cloned where they part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from allmem_edge.errors import InvalidArgumentError, MissingDependencyError
from allmem_edge.evaluation.log_softmax import log_softmax
from allmem_edge.model import Model
from allmem_edge.session import Session
from allmem_edge.template import Message

try:
    import lm_eval.models  # noqa: F401  # its own names: a registry that has ours already is not filled later
    from lm_eval import utils
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from tqdm import tqdm
except ImportError as error:
    raise MissingDependencyError(
        "allmem_edge.lm_eval needs the evaluation harness: pip install 'allmem-edge[lm-eval]'."
    ) from error

_WORTH_SHARING = 16  # tokens that are alike, from which on cloning a session is cheaper than reading them
_MOST_KEPT = 4  # sessions that wait where requests part
_READ_TOKENS = 256  # logits that are held at a time


@register_model("allmem")
class AllMemLM(TemplateLM):  # type: ignore[misc,unused-ignore]  # lm_eval has no types
    """A model directory. Greedy or seeded; one request after the other."""

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        exact: bool = False,
        window: int | None = None,
        sinks: int | None = None,
        chunk: int | None = None,
        memory: Any = "on",
        threads: int = 0,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool = False,
        prefix_token_id: int | None = None,
        batch_size: Any = 1,
        max_batch_size: Any = None,
        device: Any = None,
    ) -> None:
        """pretrained: a directory or a hub id; None for the bundled model. exact, window, sinks, chunk and
        memory as in Model.load(). max_length: tokens of a context for which the harness cuts rolling texts
        and prompts; None reads on without end. The rest is the harness's own; batch_size, max_batch_size and
        device are accepted and mean nothing here.
        """
        super().__init__()
        memory = {True: "on", False: "off"}.get(
            memory, memory
        )  # the harness reads "on" and "off" as booleans
        self._model = Model.load(
            pretrained, exact=exact, window=window, sinks=sinks, chunk=chunk, memory=memory
        )
        self._threads, self._max_length, self._max_gen_toks = threads, max_length, max_gen_toks
        self._add_bos_token = add_bos_token
        bos = self._model.text.special_tokens.get("bos_token")
        self._bos = self._model.tokenizer.token_id(bos) if bos else None
        stops = self._model.stop_ids
        if prefix_token_id is None and self._bos is None and not stops:
            raise InvalidArgumentError(
                "The model has neither a BOS nor an end token; pass prefix_token_id=ID."
            )
        self._eot = stops[0] if stops else int(self._bos if prefix_token_id is None else prefix_token_id)  # type: ignore[arg-type]
        self._prefix = prefix_token_id if prefix_token_id is not None else self._bos
        self._prefix = self._eot if self._prefix is None else self._prefix

    # --- what the harness asks for

    @property
    def eot_token_id(self) -> int:
        return self._eot

    @property
    def prefix_token_id(self) -> int:
        return int(self._prefix)  # type: ignore[arg-type]

    @property
    def tokenizer_name(self) -> str:
        return self._model.name.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        ids = self._model.tokenizer.encode(string, True)
        wants_bos = self._add_bos_token if add_special_tokens is None else add_special_tokens
        if wants_bos and self._add_bos_token and self._bos is not None and ids[:1] != [self._bos]:
            return [self._bos, *ids]
        return ids

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        if chat_template is False:
            return None
        return self._model.files.read_text("chat_template.jinja") or "in tokenizer_config.json"

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        messages = [Message(turn["role"], turn["content"]) for turn in chat_history]
        segments = self._model.chat_template.render(messages, add_generation_prompt=add_generation_prompt)
        if not add_generation_prompt:  # the last message is to be gone on with
            segments = segments[:-1]
        return "".join(segment.text for segment in segments)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (_pair, context, continuation) in enumerate(requests):
            if self._max_length is not None:
                context = context[max(0, len(context) + len(continuation) - self._max_length - 1) :]
            groups.setdefault(tuple(context), []).append(i)
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="Log-likelihoods")
        for context_ids, session, logits in self._read_all(list(groups)):
            for i in groups[context_ids]:
                pair, _context, continuation = requests[i]
                results[i] = _score(session, logits, continuation)
                self.cache_hook.add_partial("loglikelihood", pair, results[i])
                bar.update(1)
        bar.close()
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        results = []
        for request in tqdm(requests, disable=disable_tqdm, desc="Rolling log-likelihoods"):
            (text,) = request.args
            ids = self.tok_encode(text)
            windows = [([self.prefix_token_id], ids)]
            if self._max_length is not None:
                windows = [
                    utils.make_disjoint_window(window)
                    for window in utils.get_rolling_token_windows(
                        token_list=ids,
                        prefix_token=self.prefix_token_id,
                        max_seq_len=self._max_length,
                        context_len=1,
                    )
                ]
            total = 0.0
            for context, continuation in windows:
                session = self._model.session(self._threads)
                logits = session.forward(context, last_only=True)[0]
                total += _score(session, logits, continuation, own=True)[0]
            results.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        prompts: dict[tuple[int, ...], list[int]] = {}
        for i, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            if self._max_length is not None:
                room = self._max_length - _generation(request.args[1], self._max_gen_toks)["max_tokens"]
                ids = ids[-max(room, 1) :]
            ids = ids or [self.prefix_token_id]
            prompts.setdefault(tuple(ids), []).append(i)
        results = [""] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="Generating")
        # The last token is left to the generator, which wants one to read.
        begins: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for prompt in prompts:
            begins.setdefault(prompt[:-1], []).append(prompt)
        for begin, session, _logits in self._read_all(list(begins)):
            for prompt in begins[begin]:
                for i in prompts[prompt]:
                    options = _generation(requests[i].args[1], self._max_gen_toks)
                    text = "".join(session.clone().generate([prompt[-1]], **options))
                    results[i] = text
                    self.cache_hook.add_partial("generate_until", requests[i].args, text)
                    bar.update(1)
        bar.close()
        return results

    # --- sharing what requests have in common

    def _read_all(
        self, contexts: list[tuple[int, ...]]
    ) -> Iterator[tuple[tuple[int, ...], Session, np.ndarray[Any, np.dtype[np.float32]] | None]]:
        """Each context, a session that has read it, and the logits after it (None: there is nothing in it).

        In the order of their tokens, so that neighbours begin alike: a session that has read what a context
        has in common with the next waits to be cloned for it. The sessions given out are not to be changed.
        """
        waiting: list[tuple[int, Session]] = []
        before: tuple[int, ...] = ()
        ordered = sorted(contexts)
        for context, after in zip(ordered, [*ordered[1:], ()], strict=True):
            alike = _alike(before, context)
            while waiting and waiting[-1][0] > alike:
                waiting.pop()
            done, session = (waiting[-1][0], waiting[-1][1].clone()) if waiting else (0, self._new())
            shared = min(_alike(context, after), len(context) - 1)
            if shared >= done + _WORTH_SHARING and len(waiting) < _MOST_KEPT:
                session.forward(context[done:shared], last_only=True)
                waiting.append((shared, session))
                done, session = shared, session.clone()
            logits = session.forward(context[done:], last_only=True)[0] if done < len(context) else None
            yield context, session, logits
            before = context

    def _new(self) -> Session:
        return self._model.session(self._threads)


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two lists begin with together."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def _score(
    session: Session,
    logits: np.ndarray[Any, np.dtype[np.float32]] | None,
    continuation: list[int],
    *,
    own: bool = False,
) -> tuple[float, bool]:
    """log p of a continuation after what the session has read, and whether it is what greedy decoding says.

    own: the session may go on; else a clone does.
    """
    if not continuation:
        return 0.0, True
    if logits is None:
        raise InvalidArgumentError("A continuation needs a context of at least one token.")
    total, greedy = _add(logits[None], continuation[:1])
    if len(continuation) > 1:
        reader = session if own else session.clone()
        for begin in range(0, len(continuation) - 1, _READ_TOKENS):
            end = min(begin + _READ_TOKENS, len(continuation) - 1)
            more, also = _add(reader.forward(continuation[begin:end]), continuation[begin + 1 : end + 1])
            total, greedy = total + more, greedy and also
    return total, greedy


def _add(logits: np.ndarray[Any, np.dtype[np.float32]], wanted: Sequence[int]) -> tuple[float, bool]:
    chosen = log_softmax(logits)[np.arange(len(wanted)), list(wanted)]
    return float(chosen.sum()), bool((logits.argmax(axis=-1) == np.asarray(wanted)).all())


def _generation(options: dict[str, Any], most: int) -> dict[str, Any]:
    """Session.generate()'s options for the harness's."""
    named = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    max_tokens = next((int(options[name]) for name in named if options.get(name) is not None), most)
    until = options.get("until") or []
    stop = [until] if isinstance(until, str) else [text for text in until if text]
    # Nothing is left to the model's generation_config.json: figures are compared across models.
    plain = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    chosen: dict[str, Any] = {"max_tokens": max_tokens, "stop": stop, **plain}
    if options.get("do_sample", bool(options.get("temperature"))):
        chosen["temperature"] = float(options.get("temperature", 1.0))
        casts: dict[str, Callable[[Any], Any]] = {"top_p": float, "top_k": int, "min_p": float, "seed": int}
        chosen |= {name: cast(options[name]) for name, cast in casts.items() if options.get(name) is not None}
        chosen["repetition_penalty"] = float(options.get("repetition_penalty", 1.0))
    return chosen


def main() -> None:
    """lm_eval's own command line, with this model in its registry."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
