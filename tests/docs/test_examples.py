"""What the documentation tells a newcomer to type works, and every link leads somewhere."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from tests.kit.model_server import Calls, ModelServer, Says
from tests.servers.conversation import ask, text_of, until_over
from tools.docs import ROOT, pages
from towpath.events.digest import digest
from towpath.testing.server import ServerProcess, free_port
from towpath.testing.wire_client import wire_client

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs/tutorial/first-agent.md"
FROM_PYTHON = ROOT / "docs/how-to/connect-from-python.md"
FROM_JAVASCRIPT = ROOT / "docs/how-to/connect-from-javascript.md"
FROM_A_SOCKET = ROOT / "docs/how-to/connect-from-a-raw-socket.md"
FROM_AG_UI = ROOT / "docs/how-to/connect-from-ag-ui.md"
VERIFY = ROOT / "docs/how-to/verify-what-you-show.md"
APPROVAL = ROOT / "docs/how-to/ask-for-approval.md"
WITH_A_MODEL = ROOT / "docs/how-to/answer-with-a-model.md"
TOKENS = ROOT / "docs/how-to/bring-your-own-tokens.md"
PAGES = [str(page.relative_to(ROOT)) for page in pages()]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
SECRET = "a shared secret of thirty-two bytes or more"


def block(page: Path, language: str, holding: str) -> str:
    """Return the one code block of a page that holds this text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [code for code in blocks if holding in code]
    return str(found)


def run(code: str, where: Path, *arguments: str, port: int) -> str:
    """Run a program of the documentation against a port and return what it printed."""
    program = where / "program.py"
    program.write_text(code.replace(":8000", f":{port}"))
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_javascript(code: str, where: Path, timeout: float = 90) -> str:
    """Run a program that may import the unmodified SDK, and return what it printed."""
    node = shutil.which("node")
    assert node is not None, "make test brings a Node"
    (where / "node_modules").mkdir()
    (where / "node_modules/centrifuge").symlink_to(ROOT / "web/node_modules/centrifuge")
    program = where / "program.mjs"
    program.write_text(code)
    done = subprocess.run(
        [node, "--experimental-websocket", "--no-warnings", str(program)],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def serve(tmp_path: Path, agent: str) -> ServerProcess:
    """Return a server of an agent's module, in a directory of its own."""
    (tmp_path / "my_agent.py").write_text(agent)
    return ServerProcess(tmp_path / "data", "--app", "my_agent:gateway", cwd=tmp_path)


def words_said(printed: str) -> str:
    """Return what the agent said in events printed line by line, however its words were cut."""
    told = re.findall(r"^TEXT_MESSAGE_CONTENT (.*)$", printed, re.MULTILINE)
    return " ".join(" ".join(told).split())


@pytest.mark.servers
def test_the_agent_and_the_client_of_the_readme_work(tmp_path: Path) -> None:
    """Ten lines are an agent, thirty are a client, and the commands beside them run as written."""
    assert words_said(readme_client(tmp_path, "python", "ask.py")) == "HELLO THERE"


@pytest.mark.servers
@pytest.mark.sdk_js
def test_the_javascript_client_of_the_readme_works(tmp_path: Path) -> None:
    """The same in JavaScript, on a Node that may have no WebSocket of its own."""
    (tmp_path / "node_modules").symlink_to(ROOT / "web/node_modules")
    assert words_said(readme_client(tmp_path, "js", "ask.mjs")) == "HELLO THERE"


def readme_client(directory: Path, language: str, name: str) -> str:
    """Serve the README's agent, run a client of it by the commands beside it, and return its words.

    The directory looks as a clone does after `make run`; what the commands install is there.
    """
    (directory / ".venv").symlink_to(sys.prefix)
    (directory / "my_agent.py").write_text(block(README, "python", "yield word.upper()"))
    data = directory / ".towpath"
    with ServerProcess(data, "--app", "my_agent:gateway", cwd=directory) as server:
        code = block(README, language, "run.start").replace(":8000", f":{server.port}")
        (directory / name).write_text(code)
        installs, command = block(README, "sh", f" {name} ").splitlines()
        assert re.fullmatch(r"(npm|\.venv/bin/pip) install [\w -]+", installs)
        environment = {key: value for key, value in os.environ.items() if key != "TOWPATH_DATA"}
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "RUN_FINISHED"
    return done.stdout


@pytest.mark.servers
def test_the_example_file_serves(tmp_path: Path) -> None:
    """The typed twin of the README's agent answers as the README's does."""
    with serve(tmp_path, (ROOT / "examples/own_agent.py").read_text()) as server:
        client = block(README, "python", "from centrifuge import")
        said = run(client, tmp_path, server.token("alice", "demo"), port=server.port)
    assert words_said(said) == "HELLO THERE"


@pytest.mark.servers
@pytest.mark.parametrize(
    ("question", "printed"),
    [
        ("plums", 'tool said {"price": 0.2}\nOne plum costs 0.20. '),
        ("gold", "grocer.unknown We have no gold.\n"),
    ],
)
def test_the_tutorial_ends_where_it_says(tmp_path: Path, question: str, printed: str) -> None:
    """The grocer calls its tool and streams, or says in its own words why it cannot."""
    with serve(tmp_path, block(TUTORIAL, "python", "PRICES")) as server:
        client = block(TUTORIAL, "python", "from centrifuge import")
        token = server.token("alice", "demo")
        assert run(client, tmp_path, token, question, port=server.port) == printed


@pytest.mark.servers
def test_the_python_client_of_the_guide_follows_a_run(tmp_path: Path) -> None:
    """The guide's client gets a token by itself and reads all of a paced answer."""
    with ServerProcess(tmp_path / "data") as server:
        program = tmp_path / "follow.py"
        code = block(FROM_PYTHON, "python", "get_token").replace(":8000", f":{server.port}")
        program.write_text(code)
        environment = {**os.environ, "TOWPATH_DATA": str(server.data)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        done = subprocess.run(
            [sys.executable, str(program)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "1 2 3 4 5" in done.stdout


@pytest.mark.servers
def test_the_raw_socket_of_the_guide_speaks_the_wire(tmp_path: Path) -> None:
    """Thirty lines over a plain WebSocket library get an answer, without any SDK."""
    with ServerProcess(tmp_path / "data") as server:
        code = block(FROM_A_SOCKET, "python", "websockets")
        said = run(code, tmp_path, server.token("alice", "demo"), port=server.port)
    assert "hello there" in said.replace("\n", "")


@pytest.mark.servers
@pytest.mark.parametrize(
    ("decision", "answer"),
    [("approve", "Paid 12.50 to the lock keeper."), ("refuse", "the lock keeper gets nothing.")],
)
def test_the_clerk_of_the_guide_does_what_was_decided(
    tmp_path: Path, decision: str, answer: str
) -> None:
    """The guide's agent asks, its client decides on what it showed, and the agent goes on."""
    with serve(tmp_path, block(APPROVAL, "python", "def clerk")) as server:
        client = block(APPROVAL, "python", "from centrifuge import")
        token = server.token("alice", "demo")
        printed = run(client, tmp_path, token, decision, port=server.port)
    promised = block(APPROVAL, "text", "accepted").splitlines()
    shown, *rest = printed.splitlines()
    # The run goes on by itself: its words may be there before the reply to the decision.
    assert (shown, sorted(rest)) == (promised[0], sorted([promised[1], answer]))
    assert decision == "refuse" or promised[2] == answer


@pytest.mark.servers
async def test_the_clerk_of_the_guide_answers_with_a_model(tmp_path: Path) -> None:
    """The guide's agent of pydantic-ai asks its model, calls its tool and says what came of it."""
    (tmp_path / "my_clerk.py").write_text(block(WITH_A_MODEL, "python", "from_pydantic_ai(clerk)"))
    answers = (Calls(tool="time_now"), Says(pieces=["Late", "."]))
    async with ModelServer(*answers) as model:
        server = ServerProcess(
            tmp_path / "data",
            "--app",
            "my_clerk:gateway",
            environment={"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "sk-clerk"},
            cwd=tmp_path,
        )
        await asyncio.to_thread(server.start)
        async with wire_client(server.ws, server.token()) as client:
            listed = await client.rpc("agent.list")
            started = await ask(client, "What time is it?", agent="clerk")
            await until_over(client, started)
            said = text_of(client.events(started.channel))
        await asyncio.to_thread(server.stop)
    assert listed["agents"] == [{"name": "clerk", "description": "Knows what time it is."}]
    assert said == "Late."
    assert model.requests[1].conversation[-1][1].startswith("20")


@pytest.mark.servers
@pytest.mark.sdk_js
def test_the_javascript_of_the_guide_runs(tmp_path: Path) -> None:
    """The unmodified SDK runs the snippet and prints the run to its end."""
    with serve(tmp_path, block(README, "python", "yield word.upper()")) as server:
        code = block(FROM_JAVASCRIPT, "js", "newSubscription").replace(":8000", f":{server.port}")
        head = f'globalThis.location = {{ origin: "{server.http}" }};\n'
        head += f'const token = "{server.token("alice", "demo")}";\n'
        tail = '\nthread.on("publication", ({ data }) => {\n'
        tail += '  if (data.type === "RUN_FINISHED") process.exit(0);\n});\n'
        printed = run_javascript(head + code + tail, tmp_path)
    assert "HELLO" in printed


@pytest.mark.servers
@pytest.mark.sdk_js
def test_the_verifier_in_javascript_sees_what_differs(tmp_path: Path) -> None:
    """What comes agrees; a copy with one delta less does not, and is reported as the guide does."""
    setup = """
        import { Centrifuge } from "centrifuge";
        const client = new Centrifuge(address, { token });
        client.connect();
        const message = "grüße 🚂 ".repeat(50);
        const asked = { request_id: "r", agent: "echo", message };
        const started = (await client.rpc("run.start", asked)).data;
        const since = started.position;
        const thread = client.newSubscription(`thread:${started.thread_id}`, { since });
        const seen = [];
        await new Promise((over) => thread.on("publication", ({ data, tags }) => {
          seen.push({ data, tags });
          if (data.type === "RUN_FINISHED") over();
        }).subscribe());
    """
    check = """
        const told = seen.map(({ data, tags }) => agrees(data, tags));
        console.log("agrees", told.length > 3 && told.every(Boolean));
        const lost = seen.findIndex(({ data }) => data.type === "TEXT_MESSAGE_CONTENT");
        seen.splice(lost, 1);
        thread.on = async (_, handler) => {
          for (const { data, tags } of seen) await handler({ data, tags });
          console.log("left", client.getSubscription(`thread:${started.thread_id}`) === null);
          client.disconnect();
        };
    """
    code = block(VERIFY, "js", "function agrees")
    report = block(VERIFY, "js", "digest.report")
    with ServerProcess(tmp_path / "data") as server:
        head = f'const address = "{server.ws}", token = "{server.token("alice", "demo")}";'
        printed = run_javascript("\n".join((head, setup, code, check, report)), tmp_path)
        with urllib.request.urlopen(f"{server.http}/metrics", timeout=5) as answer:
            metrics = answer.read().decode()
    assert "agrees true" in printed
    assert "left true" in printed
    assert 'towpath_digest_mismatches_total{log="agrees"} 1.0' in metrics


def test_the_verifier_in_python_sees_what_differs() -> None:
    """A text in pieces agrees with its digest, one with a piece less does not."""
    names: dict[str, Any] = {}
    exec(block(VERIFY, "python", "def agrees"), names)
    text = "grüße 🚂"
    said = [{"type": "TEXT_MESSAGE_START", "messageId": "m"}]
    said += [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": one} for one in text]
    ended = {"type": "TEXT_MESSAGE_END", "messageId": "m"}
    tags = {"digest": digest(text)}
    assert all(names["agrees"](event, {}) for event in said)
    assert names["agrees"](ended, tags)
    assert all(names["agrees"](event, {}) for event in said[:-1])
    assert not names["agrees"](ended, tags)


@pytest.mark.servers
def test_curl_of_the_guide_runs_an_agent_and_comes_back(tmp_path: Path) -> None:
    """The first command streams a run to its end; the second one, with an id, gets the rest."""
    with ServerProcess(tmp_path / "data") as server:
        environment = {**os.environ, "TOWPATH_DATA": str(server.data)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"

        def shell(code: str) -> str:
            return subprocess.run(
                ["sh", "-ec", code.replace(":8000", f":{server.port}")],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout

        first = block(FROM_AG_UI, "sh", "Content-Type")
        whole = shell(first)
        ids = re.findall(r"^id: (.*)$", whole, re.MULTILINE)
        environment["LAST"] = ids[len(ids) // 2]
        environment["TOKEN"] = server.token("alice", "demo")
        rest = shell(block(FROM_AG_UI, "sh", "Last-Event-ID"))
        again = shell(first)
    assert '"RUN_FINISHED"' in whole
    # The text in one, its end and the run's end: each completes a position.
    assert re.findall(r"^id: (.*)$", rest, re.MULTILINE) == ids[-3:]
    assert '"RUN_STARTED"' not in rest
    assert again.count('"RUN_STARTED"') == 1
    assert "29 30" in again


@pytest.mark.servers
@pytest.mark.sdk_js
def test_the_ag_ui_client_of_the_guide_runs_and_reloads(tmp_path: Path) -> None:
    """The snippets run one after the other: a run with tools, and the thread after a reload."""
    node = shutil.which("node")
    assert node is not None, "make test brings a Node"
    (tmp_path / "node_modules").symlink_to(ROOT / "web/node_modules")
    with ServerProcess(tmp_path / "data") as server:
        code = block(FROM_AG_UI, "js", "new HttpAgent({\n").partition("\n")[2]
        reload = block(FROM_AG_UI, "js", "class ThreadAgent")
        head, _, body = reload.partition("\n")
        program = tmp_path / "program.mjs"
        program.write_text(
            f'{head}\nconst server = "{server.http}";\n'
            f'const token = "{server.token("alice", "demo")}";\n{code}'
            f"const {{ url, headers, threadId }} = agent;\n{body}"
        )
        done = subprocess.run(
            [node, "--no-warnings", str(program)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert 'tool said {"words": 2}' in done.stdout
    assert "user: hello there\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("assistant: Your message has 2 words")


@pytest.mark.servers
@pytest.mark.parametrize("page", [README, TOKENS], ids=["readme", "guide"])
def test_the_mounted_gateway_takes_the_tokens_it_was_configured_for(
    tmp_path: Path, page: Path
) -> None:
    """Inside another application, with a shared secret, it lets its own people in and no others."""
    (tmp_path / "main.py").write_text(block(README, "python", "gateway.mount"))
    port = free_port()
    environment = {**os.environ, "TOWPATH_JWT_KEY": SECRET, "TOWPATH_TENANT": "acme"}
    command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port)]
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}/towpath"
        until_ready(f"{base}/health/ready", process, tmp_path / "log")
        token = minted(page)
        request = urllib.request.Request(f"{base}/api/v1/whoami")
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert b'"tenant":"acme"' in answer.read()
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


def minted(page: Path) -> str:
    """Return a token for alice: made by the guide's own code where the page has any."""
    if page is README:
        claims = {"sub": "alice", "exp": int(time.time()) + 600}
        return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))
    names: dict[str, str] = {}
    code = block(page, "python", "jwt.encode").replace('os.environ["TOWPATH_JWT_KEY"]', "SECRET")
    exec(compile(code, page.name, "exec"), {"SECRET": SECRET}, names)
    return names["token"]


def until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server says that it is ready."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """A relative link names a file that is there, and a heading that stands in it."""
    here = ROOT / page
    for link in LINK.findall(without_code(here.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (here.parent / path).resolve() if path else here
        assert target.exists(), f"{page} links to {link}, which is not there"
        assert not heading or heading in anchors(target), f"{page}: {path} has no #{heading}"


def anchors(page: Path) -> set[str]:
    """Return what a link may name after `#` in a page."""
    if page.suffix != ".md":
        return set()
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(text: str) -> str:
    """Return a page without its code blocks, where brackets mean other things."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_machine(page: str) -> None:
    """No path of somebody's own machine stands in the documentation."""
    assert not re.search(r"(?<![\w.])/(?:work|home|root|Users|tmp)/", (ROOT / page).read_text())
