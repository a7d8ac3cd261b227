#!/usr/bin/env bash
# Package:   pingouin 0.7.0, ttest(paired=True)
# Behaviour: the "power" it prints is computed from Cohen's d over the deviations of the two samples
#            (d_av), as if pairs were not paired; a paired t test depends on the deviation of the
#            differences (d_z). power_ttest(contrast="paired") itself wants d_z, and is right with it.
# Seen:      five seeds, each 0.9 to 1.3 points better: p = 0.0001, and a power of 0.089; by the
#            noncentral t, and by power_ttest with d_z, it is 1.000.
# Hurts:     levels differ more between seeds than methods do within one, which is why runs are paired.
#            The line reads as if five seeds could have found such a gain one time in eleven: more GPUs
#            are spent on what is known, or the result is called luck.
# Way out:   power_ttest(d=differences.mean() / differences.std(ddof=1), n=n, contrast="paired").
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --disable-pip-version-check \
    pingouin==0.7.0 scipy==1.17.1 numpy==2.4.6 pandas==3.1.1
"$folder/env/bin/python" - <<'EOF'
import numpy as np
import pingouin
from scipy import stats

plain = np.array([75.2, 78.9, 81.4, 72.6, 77.3])
gains = np.array([1.0, 1.3, 0.9, 1.2, 1.1])
row = pingouin.ttest(plain + gains, plain, paired=True).iloc[0]
d_z = gains.mean() / gains.std(ddof=1)
n = len(gains)
critical = stats.t.ppf(0.975, n - 1)
truth = 1 - stats.nct.cdf(critical, n - 1, d_z * n**0.5)
print(f"p {row['p_val']:.4f}, its power {row['power']:.3f}, of the pairs {truth:.3f}")
assert stats.ttest_rel(plain + gains, plain).pvalue < 0.001
assert row["power"] < 0.1 < 0.999 < truth
assert pingouin.power_ttest(d=d_z, n=n, contrast="paired") > 0.999
EOF
echo "as described"
