"""Examples of using BDH generation API programmatically.

    python python/examples/generation_api.py [path/to/a/model]
"""
import sys

from bdh_gpu import BDH

# Load model
model = BDH.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "models/bdh-shakespeare")

# Simple generation
text = model.generate_text("To be or not to be", max_new_tokens=50)
print(text)

# With custom parameters
text = model.generate_text(
    "Once upon a time",
    max_new_tokens=100,
    temperature=0.9,
    top_k=40,
    top_p=0.95,
    repetition_penalty=1.1,
)
print(text)

# Batch generation
prompts = ["Hello", "The meaning of life", "In the beginning"]
texts = model.generate_batch(prompts, max_new_tokens=50, temperature=0.8)
for prompt, text in zip(prompts, texts):
    print(f"{prompt} -> {text}")

# Streaming generation
print("Streaming:")
for token in model.generate_stream("The future of AI", max_new_tokens=100):
    print(token, end="", flush=True)
print()
