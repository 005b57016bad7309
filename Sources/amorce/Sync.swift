import ArgumentParser
import BootSequence

struct Sync: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a new release from the live one and the orchestrator's delta.",
        discussion: "The new release goes live as in a boot: checked, switched to in one step, proved, or taken back.")

    @OptionGroup var options: GlobalOptions
    @Flag(help: "Print the report of the run on standard output.") var json = false
    @Flag(help: "Show what would be done, and change nothing (as amorce plan).") var dryRun = false

    func run() throws {
        if dryRun { return try Plan.show(options, isJSON: json) }
        try options.perform(.sync, printsReport: json)
    }
}
