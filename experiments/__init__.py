"""Experiments: every table and figure of the papers, the report and the benchmarks.

The only place that plots, prints, touches files or imports more than one of the packages. One
folder a paper, one module a table or figure. Such a module has

    Config          a frozen dataclass; its fields are the command-line options
    QUICK           the Config of a quick run
    run(config)     -> results: plain data with a "table" (a list of rows; "paper" and "here" are
                    the columns that the summary shows), "series" for the plot, and "notes"
    plot(results)   -> a matplotlib figure
"""
