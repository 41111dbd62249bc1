"""Networks at work: predict, embed, evaluate, optimise, export, and how fast they are."""
