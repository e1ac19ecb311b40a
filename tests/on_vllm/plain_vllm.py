"""Greedy texts by vLLM itself, all requests at once, its prefix cache on; a program, since it fills its process.

python plain_vllm.py FOLDER COUNT   standard input: a JSON list of prompts, each a list of token ids
                                    last line of the output: a JSON list of texts, each a list of (id, log-probability)
"""

import json
import sys

from vllm import LLM, SamplingParams


def main() -> None:
    folder, count = sys.argv[1], int(sys.argv[2])
    prompts = json.load(sys.stdin)
    model = LLM(
        folder,
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        enable_prefix_caching=True,
        block_size=32,
        max_model_len=128,
        max_num_seqs=len(prompts),
        seed=0,
    )
    options = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False, logprobs=0)
    outputs = model.generate([{"prompt_token_ids": each} for each in prompts], options, use_tqdm=False)
    texts = []
    for output in outputs:
        found = output.outputs[0]
        assert found.logprobs is not None
        pairs = zip(found.token_ids, found.logprobs, strict=True)
        texts.append([(int(token), float(at[token].logprob)) for token, at in pairs])
    print(json.dumps(texts))


if __name__ == "__main__":
    main()
