"""What happens to an image, step by step: fetch, decode, sample, infer, sink; a `base.Stage` does some of them."""
