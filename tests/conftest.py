"""Settings of the whole suite."""

import torch

# The models are tiny: a second thread costs more in waiting than it computes, above all where
# several test processes share the cores.
torch.set_num_threads(1)
