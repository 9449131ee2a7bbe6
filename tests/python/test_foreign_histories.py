"""Conversations that other providers wrote a part of, with every type that the vendors' packages know: never a 400."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anthropic import Anthropic
from anthropic.types.beta.beta_content_block_param import BetaContentBlockParam
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses.response_input_item_param import ResponseInputItemParam

from backstop_process import REQUEST_TIMEOUT_S, BackstopProcess
from requests_made import MODEL_NAME, chat
from typed_samples import alternatives, samples

BLOCKS = alternatives(BetaContentBlockParam)
ITEMS = alternatives(ResponseInputItemParam)
MESSAGES = alternatives(ChatCompletionMessageParam)
# It asks for something now.
REFUSED_ITEM = "compaction_trigger"
GO, ON = {"role": "user", "content": "Go"}, {"role": "user", "content": "On"}
DONE = {"role": "assistant", "content": "Done."}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
LOOK = [{"role": "user", "content": [{"type": "text", "text": "Look"}, IMAGE]}]


@pytest.fixture
def anthropic_client(server: BackstopProcess) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.root, api_key="unused", max_retries=0, timeout=REQUEST_TIMEOUT_S) as client:
        yield client


def test_the_packages_know_many_types() -> None:
    assert len(BLOCKS) >= 20 and len(ITEMS) >= 25 and len(MESSAGES) >= 6


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.__name__)
def test_every_block_of_the_messages_api(anthropic_client: Anthropic, kind: Any) -> None:
    messages = anthropic_client.beta.messages
    for block in samples(kind):
        for role in ("assistant", "user"):
            history = [GO, {"role": role, "content": [block]}, DONE, ON]
            assert messages.count_tokens(model=MODEL_NAME, messages=history).input_tokens > 0
    history = [GO, {"role": "assistant", "content": [next(samples(kind))]}, ON]
    assert messages.create(model=MODEL_NAME, max_tokens=2, messages=history).content is not None


@pytest.mark.parametrize("kind", ITEMS, ids=lambda kind: kind.__name__)
def test_every_item_of_the_responses_api(client: OpenAI, kind: Any) -> None:
    for item in samples(kind):
        body = {"model": MODEL_NAME, "max_output_tokens": 16, "input": [GO, item, DONE, ON]}
        if item["type"] == REFUSED_ITEM:
            with pytest.raises(BadRequestError) as caught:
                client.responses.create(**body)
            assert caught.value.param == "input.1.type"
        else:
            assert client.responses.create(**body).output is not None


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_of_a_chat(client: OpenAI, kind: Any) -> None:
    for message in samples(kind):
        body = chat(messages=[GO, message, DONE, ON], max_tokens=2)
        assert client.chat.completions.create(**body).choices


def test_an_image_is_refused_now_and_noted_where_the_operator_wants_it(
    client: OpenAI, start: Callable[..., BackstopProcess]
) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(**chat(messages=LOOK))
    assert caught.value.param == "messages.0.content.1.type"
    server = start("--unsupported-content", "note").wait_until_ready()
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0, timeout=REQUEST_TIMEOUT_S) as noting:
        assert noting.chat.completions.create(**chat(messages=LOOK)).choices
    with Anthropic(base_url=server.root, api_key="unused", max_retries=0, timeout=REQUEST_TIMEOUT_S) as noting:
        shown = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://a.b/c"}}]}]
        assert noting.messages.count_tokens(model=MODEL_NAME, messages=shown).input_tokens > 0
        assert noting.messages.create(model=MODEL_NAME, max_tokens=2, messages=shown).content is not None
