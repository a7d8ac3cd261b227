"""What a backbone's classifier is worth beyond accuracy: suites that share one run and one result.

    suites              what there is, with the metrics that the report shows; no torch
    config              the options of each
    run                 (backbone, what is asked for) -> Result, resumable between parts
    session             what a suite is given: device, loading, what is kept of finished parts
    images              labelled images of a folder, the labels being the classifier's outputs

A suite is a module with two functions, `open_data` and `evaluate`.
"""
