"""The commands of `transformer-nb`.

    options     the options of each command, and their help
    parser      one-line errors with the nearest name
    output      printing that neither an encoding nor a closed pipe can stop
    train       `transformer-nb train`
    generate    `transformer-nb generate`
    evaluate    `transformer-nb evaluate`
    plot        `transformer-nb plot`
"""
