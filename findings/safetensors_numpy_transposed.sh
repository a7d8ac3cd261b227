#!/usr/bin/env bash
# Package:   safetensors 0.8.0, safetensors.numpy (0.7.0 is right; reported upstream as issue 825)
# Behaviour: an array that is not laid out row by row (transposed, strided, Fortran order) is written
#            as its memory lies, under its logical shape. No error, no warning: it loads with the right
#            shape and dtype and the values in other places.
# Seen:      a kernel converted from (H, W, in, out) by .transpose(3, 2, 0, 1): 0.7.0 gives it back
#            equal, 0.8.0 does not, though the sorted values are the same.
# Hurts:     turning TensorFlow's or JAX's kernels into PyTorch's layout is such a transpose. The
#            exported backbone passes every check of names, shapes and of mean and deviation, loads
#            strictly, and computes nonsense, which fine-tuning then partly hides. An upgrade of the
#            package is enough; safetensors.torch refuses such tensors, so nobody expects it.
# Way out:   numpy.ascontiguousarray before saving, and a comparison of outputs after it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat > see.py <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 16)).astype(np.float32)  # H, W, in, out
weight = kernel.transpose(3, 2, 0, 1)  # out, in, H, W
save_file({"as it is": weight, "copied": np.ascontiguousarray(weight)}, "model.safetensors")
loaded = load_file("model.safetensors")
equal = {name: bool(np.array_equal(value, weight)) for name, value in loaded.items()}
same_values = np.array_equal(np.sort(loaded["as it is"], None), np.sort(weight, None))
assert loaded["as it is"].shape == weight.shape
assert same_values
assert equal["copied"]
print(f"safetensors {safetensors.__version__}: equal after loading: {equal}")
raise SystemExit(0 if str(equal["as it is"]) == sys.argv[1] else "the behaviour has changed")
PYTHON
for pair in 0.7.0=True 0.8.0=False; do
  python3 -m venv "env-$pair"
  "env-$pair/bin/pip" install --quiet --disable-pip-version-check \
    "safetensors==${pair%=*}" numpy==2.4.6
  "env-$pair/bin/python" see.py "${pair#*=}"
done
