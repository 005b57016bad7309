import ArgumentParser
import BootSequence
import HostSystem

/// For the unit that runs before the services start: a machine that lost power in the middle of a switch must not start them
/// with half of the new configuration.
struct Recover: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Put back the files of a switch that was cut off, before services start.", shouldDisplay: false)

    @OptionGroup var options: GlobalOptions

    func run() throws {
        let console = options.console(keepsLog: true)
        let log = Log { console.show(.message($0, $1)) }
        do {
            let layout = options.layout
            try Files.makeDirectories(layout.runtime)
            let lock = try FileLock(path: layout.lockFile, holder: "amorce recover, pid \(Host.processIdentifier)")
            let undone = try withExtendedLifetime(lock) {
                try BootSequence.recoverSwitch(layout: layout, filesOnly: true, log: log, stop: options.stopFlag())
            }
            if let undone { log.warning(undone) }
        } catch {
            throw options.refusal(BootFailure(.recover, "taking back a switch that was cut off", error))
        }
    }
}
