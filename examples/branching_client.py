"""Branches over HTTP, with the official OpenAI client: two replies continue the same response, and share its tokens.

ramet serve --model CHECKPOINT      in one terminal
python examples/branching_client.py     in another (needs: pip install openai)
"""

from __future__ import annotations

from openai import OpenAI


def main() -> None:
    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    model = client.models.list().data[0].id
    first = client.responses.create(model=model, input="Name three lakes near Vienna.", max_output_tokens=200)
    print(first.output_text)
    for question in ("Which is the deepest?", "Which has a railway station?"):
        branch = client.responses.create(
            model=model, input=question, previous_response_id=first.id, max_output_tokens=200
        )
        usage = branch.usage
        assert usage is not None
        print(f"\n{question}\n{branch.output_text}")
        print(f"({usage.input_tokens} tokens in, {usage.input_tokens_details.cached_tokens} of them reused)")


if __name__ == "__main__":
    main()
