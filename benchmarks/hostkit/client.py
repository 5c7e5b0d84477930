"""A JSON client of ComfyUI: queue prompts, wait for them, read what they made."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Prompt = dict[str, dict[str, Any]]


class HostRequestError(Exception):
    """The host answered with an error; `status` and `body` are its answer."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"HTTP {status}: {json.dumps(body)[:600]}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Finished:
    """One prompt that left the queue."""

    prompt_id: str
    status: str
    """`success` or `error`."""
    outputs: dict[str, dict[str, Any]]
    started_s: float
    ended_s: float
    messages: list[Any]

    @property
    def run_s(self) -> float:
        return self.ended_s - self.started_s

    def output(self, name: str) -> list[Any]:
        """The UI output `name` of whichever node made it."""
        return next(output[name] for output in self.outputs.values() if name in output)


class HostClient:
    """Blocking; every call raises HostRequestError on an HTTP error."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        return self._request("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        return self._request("POST", path, body)

    def queue(self, prompt: Prompt, **fields: Any) -> str:
        """Returns the prompt's id. A client_id makes the host record its start and end times."""
        return str(self.post("/prompt", {"prompt": prompt, "client_id": "hostkit", **fields})["prompt_id"])

    def wait(self, prompt_ids: Sequence[str], timeout_s: float = 120.0) -> list[Finished]:
        """Poll the history until every prompt is there. Raises TimeoutError with the ids that are not."""
        deadline = time.monotonic() + timeout_s
        done: dict[str, Finished] = {}
        while len(done) < len(prompt_ids):
            for prompt_id in prompt_ids:
                if prompt_id not in done:
                    entry = self.get(f"/history/{prompt_id}").get(prompt_id)
                    if entry is None:
                        break
                    done[prompt_id] = _finished(prompt_id, entry)
            if time.monotonic() > deadline:
                raise TimeoutError(f"not finished after {timeout_s} s: {[i for i in prompt_ids if i not in done]}")
            time.sleep(0.02)
        return [done[prompt_id] for prompt_id in prompt_ids]

    def run(self, *prompts: Prompt, timeout_s: float = 120.0) -> list[Finished]:
        """Queue all, then wait for all."""
        return self.wait([self.queue(prompt) for prompt in prompts], timeout_s)

    def _request(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return _decoded(response.read())
        except urllib.error.HTTPError as exc:
            raise HostRequestError(exc.code, _decoded(exc.read())) from None


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode(errors="replace")


def _finished(prompt_id: str, entry: dict[str, Any]) -> Finished:
    messages = entry["status"]["messages"]
    times = {name: detail["timestamp"] / 1000 for name, detail in messages}
    ended = next(
        (times[n] for n in ("execution_success", "execution_error", "execution_interrupted") if n in times), 0.0
    )
    return Finished(
        prompt_id, entry["status"]["status_str"], entry["outputs"], times.get("execution_start", 0.0), ended, messages
    )
