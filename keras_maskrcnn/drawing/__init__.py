"""Parts of drawings: labels on plates, colours, and sheets of several images. `visualize` composes them."""
