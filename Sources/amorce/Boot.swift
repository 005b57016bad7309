import ArgumentParser
import BootSequence

struct Boot: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make this instance a serving front; safe to repeat.",
        discussion: "On a front that already has its release only the delta is brought.")

    @OptionGroup var options: GlobalOptions
    @Flag(help: "Print the report of the run on standard output.") var json = false
    @Flag(help: "Show what would be done, and change nothing (as amorce plan).") var dryRun = false

    func run() throws {
        if dryRun { return try Plan.show(options, isJSON: json) }
        try options.perform(.boot, printsReport: json)
    }
}
