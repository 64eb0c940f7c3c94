"""The process in which the local model runs; a script that imports nothing of Towpath.

It reads the path of the model and the API key of its server as one line of JSON from standard
input, so that a list of processes does not show them. It answers with one line on standard output:
its URL, or an error. Standard input then stays open while the gateway runs. When it ends, however
the gateway ended, this process ends too.
"""

import importlib
import json
import os
import threading
from typing import Any

CONTEXT_TOKENS = 4096
"""The context window of one conversation, including the answer."""
CONVERSATIONS = 2
"""How many conversations are answered at once; further ones are queued."""
ANSWER_TOKENS = 1024
"""The longest answer: a small model may never end its answer."""
MOST_THREADS = 4
"""More threads do not make so small a model faster. It gets half the cores: its threads busy-wait
for each other, so with all cores it is twenty times slower if another process needs one too."""


def main() -> None:
    """Load the model, serve it, and end when the gateway does."""
    answers = os.fdopen(os.dup(1), "w")
    # What the library prints must not reach the gateway.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    request = json.loads(_line())
    threading.Thread(target=_leave_with_the_gateway, daemon=True).start()
    try:
        server = _serve(request["model"], request["key"])
    except Exception as error:  # The outermost edge: the gateway gets it as the answer.
        answer = {"error": f"{type(error).__name__}: {error}"}
    else:
        answer = {"url": server.listening_address}
    print(json.dumps(answer), file=answers, flush=True)
    answers.close()
    if "url" in answer:
        threading.Event().wait()


def _line() -> bytes:
    """Return the first line of standard input, and leave the rest unread."""
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(0, 1)
        if not read:
            os._exit(0)
        line += read
    return line


def _serve(model: str, key: str) -> Any:
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"local"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.n_parallel = CONVERSATIONS
    params.n_ctx = CONTEXT_TOKENS * CONVERSATIONS
    params.n_predict = ANSWER_TOKENS
    params.cache_ram_mib = 0
    threads = max(1, min(MOST_THREADS, (os.cpu_count() or 1) // 2))
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.ui = False
    params.verbosity = 0
    return xllamacpp.Server(params)


def _leave_with_the_gateway() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
