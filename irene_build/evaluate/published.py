"""The numbers that the paper prints (Cao et al., ACL 2021), to stand beside ours. Percent."""

from __future__ import annotations

#: Order of columns in Tables 5 and 6, and the names there.
MODELS = {
    "bert-base-uncased": "BERT-base", "distilbert-base-uncased": "DistilBERT", "roberta-base": "RoBERTa-base",
    "gpt2": "GPT2", "distilgpt2": "DistilGPT2", "openai-gpt": "OpenaiGPT",
}  # fmt: skip
PRIMITIVES = ("Embedding", "LayerNorm", "Linear", "Tanh", "MatMul", "Softmax", "Conv1D")

#: PC -> row -> values in the order of MODELS, then the average.
TABLE_5 = {
    "pc1": {
        "strubell": (57.9, 56.3, 62.5, 62.6, 55.9, 61.8, 57.8),
        "irene": (5.8, 11.6, 7.1, 3.5, 2.2, 2.7, 5.5),
    },
    "pc2": {
        "strubell": (55.1, 52.6, 58.9, 54.6, 49.8, 60.6, 55.6),
        "irene": (10.0, 9.4, 7.1, 6.1, 4.9, 5.9, 7.2),
    },
}  # fmt: skip
TABLE_6 = {
    "pc1": (5.37, 5.93, 5.44, 14.92, 14.73, 13.98, 8.54),
    "pc2": (6.78, 7.96, 6.69, 16.65, 16.41, 16.07, 10.16),
}
#: In the order of PRIMITIVES, then the average.
TABLE_7 = {
    "pc1": (0.65, 0.89, 0.60, 0.82, 0.61, 1.0, 0.58, 0.70),
    "pc2": (0.38, 0.66, 0.55, 0.43, 0.43, 0.67, 0.41, 0.53),
}
#: Tables 8 and 9 are of PC1: ML, module, model (None: not printed).
TABLE_8 = {
    "IrEne": (0.70, 8.54, 5.52),
    "w/o resource features": (5.76, 11.54, 7.08),
    "w/o model features": (0.63, 8.87, 7.32),
}
TABLE_9 = {
    "IrEne (End2End)": (None, 8.54, 5.52),
    "StepWise": (None, 9.28, 14.84),
    "PredictedSum": (None, 16.4, 17.69),
    "Unstructured": (None, 278.0, 39.79),
}
#: Figure 3, model level, as the text states it: (error in percent, share of predictions below it in percent).
FIGURE_3 = ((10.0, 50.0), (16.0, 99.0), (17.0, 100.0))
