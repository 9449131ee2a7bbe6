"""Runs BFCL's own command line with one more model, `subject`: the one that is asked for at OPENAI_BASE_URL.

Usage: bfcl_launcher.py MODEL fc|prompt COMMAND ...
"""

import sys

from bfcl_eval.constants import model_config
from bfcl_eval.model_handler.api_inference.openai_completion import OpenAICompletionsHandler

model, mode = sys.argv[1:3]
model_config.MODEL_CONFIG_MAPPING["subject"] = model_config.ModelConfig(
    model_name=model,
    display_name=model,
    url="",
    org="",
    license="",
    model_handler=OpenAICompletionsHandler,
    is_fc_model=mode == "fc",
    # As BFCL has it for models of OpenAI: their API takes no dots in names of functions.
    underscore_to_dot=mode == "fc",
)

from bfcl_eval.__main__ import cli

sys.argv = ["bfcl", *sys.argv[3:]]
cli()
