/// What follows a failed attempt. Pure.
enum RsyncRetry: Equatable {
    case again(after: Duration)
    /// Good enough: every file that still exists was brought.
    case accept
    case giveUp

    /// Failures that another attempt may not meet, by what it has to wait for. What is not here is never tried again: wrong
    /// options, a refused password, a missing folder or marker, too many deletions, a full disk.
    enum Class: Hashable {
        case absent, full, broken, unreadable, vanished

        init?(_ failure: RsyncFailure) {
            switch failure {
            case .unreachable: self = .absent
            case .busy: self = .full
            case .connectionLost, .stalled: self = .broken
            case .partial: self = .unreadable
            case .vanished: self = .vanished
            default: return nil
            }
        }
    }

    /// - Parameter times: how often this run has failed so, this failure included.
    init(_ kind: Class, times: Int) {
        // Fronts of one launch wait for one orchestrator together: patient with a full one, brief with an absent one, since
        // a boot is waiting and may serve the backup.
        let delays: [Int] =
            switch kind {
            case .absent: [1, 3]
            case .full: [1, 2, 4, 8, 15, 15, 15, 15, 15, 15]
            case .broken: [1, 3, 9]
            case .unreadable, .vanished: [1]
            }
        if times <= delays.count {
            self = .again(after: .seconds(delays[times - 1]))
        } else {
            self = kind == .vanished ? .accept : .giveUp
        }
    }
}
