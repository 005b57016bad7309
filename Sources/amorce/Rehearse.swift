import ArgumentParser
import BootSequence
import HostSystem

/// amorce runs this itself, inside the view of the staged configuration.
struct Rehearse: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve the staged configuration aside and ask it.", shouldDisplay: false)

    @Argument(help: "What to serve and what to ask.") var file: String

    func run() throws {
        let stop = StopFlag()
        Host.stopOnSignals(stop)
        let transport = CurlTransport(userAgent: "amorce/" + BuildInformation.version)
        Output.json(try Rehearsal(file: file, transport: transport).perform(stop: stop))
    }
}
