import ArgumentParser
import BootSequence

struct RollbackCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback",
        abstract: "Go back to the previous release, or a named one, with its configuration.")

    @OptionGroup var options: GlobalOptions
    @Argument(help: "The release, as amorce status lists it; without it, the one before the live one.")
    var release: String?
    @Flag(help: "Print the report of the run on standard output.") var json = false

    func run() throws { try options.perform(.rollback(release), printsReport: json) }
}
