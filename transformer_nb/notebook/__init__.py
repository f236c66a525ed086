"""What the pages show.

    plotting     the style of figures, matrices with labels
    map          the drawing of the whole Transformer
    loss_plot    a loss curve that grows while a model trains
    questions    predictions and exercises
    explorer     what a trained model computes for one input, to look at and to switch off
    explorer_data  what the explorer shows, as names and bytes
    explorer_picture  the explorer's view as a static figure and as text
    cheat_sheet  the summaries of all pages on one sheet
"""
