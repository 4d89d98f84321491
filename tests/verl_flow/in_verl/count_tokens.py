"""Prints the tokens of a text on stdin, by the tokenizer as verl's environment loads it: count_tokens.py MODEL"""

import json
import sys

from transformers import AutoTokenizer

print("\n" + json.dumps(AutoTokenizer.from_pretrained(sys.argv[1]).encode(json.load(sys.stdin))))
