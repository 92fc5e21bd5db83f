"""Draw a figure of your own from the published tables, in ten lines.

`frame` gives a chapter's rows as a pandas table; accuracies are fractions.
"""

import matplotlib.pyplot as plt

from widemin.experiments import frame

rows = frame("01", "paper")
final = rows[rows["measured"] == "final"]
for size, part in final.groupby("batch_size"):
    ratio = part["learning_rate"] / part["batch_size"]
    plt.scatter(ratio, part["fgsm_accuracy"], label=f"{size:g}")
plt.xscale("log")
plt.xlabel("learning rate over batch size")
plt.ylabel("accuracy under FGSM")
plt.legend(title="batch size")
plt.savefig("ratio.png")
print(f"ratio.png shows {len(final)} networks of {rows.attrs['chapter']}.")
