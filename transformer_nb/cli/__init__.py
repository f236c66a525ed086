"""The commands of `transformer-nb`.

    options     what a line may say, and its help
    parser      one-line errors with the nearest name
    output      printing that neither an encoding nor a closed pipe can stop
    train       `transformer-nb train`
    generate    `transformer-nb generate`
    evaluate    `transformer-nb evaluate`
    plot        `transformer-nb plot`
"""
