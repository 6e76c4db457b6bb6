// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

interface IToken {
    function decimals() external view returns (uint8);
    function balanceOf(address who) external view returns (uint256);
    function transfer(address to, uint256 value) external returns (bool);
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}

/// Speaks as Curve's CryptoSwap pools of two coins do, of the first generation or (events only) of the next, with maths
/// written for these tests. How the price scale follows trades is simpler than Curve's: a mirror reads where it went.
contract CryptoPool {
    uint256 constant ONE = 10 ** 18;

    address[2] public coins;
    uint256[2] public balances;
    uint256[2] private precisions_;
    uint256 public price_scale;
    uint256 public D;
    uint256 public mid_fee;
    uint256 public out_fee;
    uint256 public fee_gamma;
    uint256 public initial_A_gamma;
    uint256 public future_A_gamma;
    uint256 public initial_A_gamma_time;
    uint256 public future_A_gamma_time;
    uint256 public totalSupply;
    bool private immutable ng;

    event TokenExchange(address indexed buyer, uint256 sold_id, uint256 sold, uint256 bought_id, uint256 bought);
    event TokenExchange(
        address indexed buyer, uint256 sold_id, uint256 sold, uint256 bought_id, uint256 bought, uint256 fee, uint256 scale
    );
    event AddLiquidity(address indexed provider, uint256[2] amounts, uint256 fee, uint256 supply);
    event AddLiquidity(address indexed provider, uint256[2] amounts, uint256 fee, uint256 supply, uint256 scale);
    event RemoveLiquidity(address indexed provider, uint256[2] amounts, uint256 supply);
    event RemoveLiquidityOne(address indexed provider, uint256 burnt, uint256 id, uint256 paid);
    event NewParameters(uint256 admin, uint256 mid, uint256 out, uint256 gamma, uint256 extra, uint256 step, uint256 ma);
    event RampAgamma(uint256 a0, uint256 a1, uint256 gamma0, uint256 gamma1, uint256 t0, uint256 t1);

    constructor(address[2] memory all, uint256 a, uint256 gamma_, uint256 mid, uint256 out, uint256 feeGamma, uint256 price, bool isNg) {
        coins = all;
        for (uint256 k = 0; k < 2; k++) precisions_[k] = 10 ** (18 - IToken(all[k]).decimals());
        initial_A_gamma = future_A_gamma = a << 128 | gamma_;
        (mid_fee, out_fee, fee_gamma, price_scale) = (mid, out, feeGamma, price);
        ng = isNg;
    }

    // What may be asked.

    function A() external view returns (uint256 a) {
        (a,) = _parameters();
    }

    function gamma() external view returns (uint256 g) {
        (, g) = _parameters();
    }

    function get_dy(uint256 i, uint256 j, uint256 dx) public view returns (uint256) {
        require(i != j && i < 2 && j < 2, "coins");
        (uint256 a, uint256 g) = _parameters();
        uint256 d = future_A_gamma_time > 0 ? _invariant(a, g, _scaled(balances)) : D;
        uint256[2] memory held = balances;
        held[i] += dx;
        uint256[2] memory xp = _scaled(held);
        uint256 y = _other(a, g, xp[1 - j], d);
        uint256 gross = xp[j] - y - 1;
        xp[j] = y;
        gross = j > 0 ? gross * ONE / (price_scale * precisions_[1]) : gross / precisions_[0];
        return gross - _charge(xp) * gross / 10 ** 10;
    }

    // What may be done.

    function exchange(uint256 i, uint256 j, uint256 dx, uint256 least) external returns (uint256 out) {
        out = get_dy(i, j, dx);
        require(out > 0 && out >= least, "too little");
        _take(i, dx);
        _give(j, out);
        // The scale goes a little of the way to where the trade went.
        uint256 traded = i == 0 ? dx * precisions_[0] * ONE / (out * precisions_[1]) : out * precisions_[0] * ONE / (dx * precisions_[1]);
        if (traded > price_scale / 2 && traded < price_scale * 2) price_scale = (price_scale * 99 + traded) / 100;
        _settle();
        if (ng) emit TokenExchange(msg.sender, i, dx, j, out, 0, price_scale);
        else emit TokenExchange(msg.sender, i, dx, j, out);
    }

    function add_liquidity(uint256[2] calldata amounts, uint256 least) external returns (uint256 minted) {
        uint256 before = D;
        for (uint256 k = 0; k < 2; k++) if (amounts[k] > 0) _take(k, amounts[k]);
        _settle();
        minted = totalSupply == 0 ? D : totalSupply * D / before - totalSupply;
        require(minted > 0 && minted >= least, "too little");
        totalSupply += minted;
        if (ng) emit AddLiquidity(msg.sender, amounts, 0, totalSupply, price_scale);
        else emit AddLiquidity(msg.sender, amounts, 0, totalSupply);
    }

    function remove_liquidity(uint256 burnt) external {
        uint256[2] memory paid;
        for (uint256 k = 0; k < 2; k++) {
            paid[k] = balances[k] * (burnt - 1) / totalSupply;
            _give(k, paid[k]);
        }
        D -= D * (burnt - 1) / totalSupply;
        totalSupply -= burnt;
        emit RemoveLiquidity(msg.sender, paid, totalSupply);
    }

    function remove_liquidity_one_coin(uint256 burnt, uint256 k) external {
        uint256 paid = balances[k] * burnt / totalSupply;
        // As Curve's does, also where nothing was ever ramped: from then on D is found anew for each quote.
        if (block.timestamp >= future_A_gamma_time) future_A_gamma_time = 1;
        _give(k, paid);
        totalSupply -= burnt;
        _settle();
        emit RemoveLiquidityOne(msg.sender, burnt, k, paid);
    }

    /// Takes what was given to the pool into its balances, and tells nobody. The next generation has no such call.
    function claim_admin_fees() external {
        require(!ng, "nobody may");
        for (uint256 k = 0; k < 2; k++) balances[k] = IToken(coins[k]).balanceOf(address(this));
        _settle();
    }

    function apply_new_parameters(uint256 mid, uint256 out, uint256 feeGamma) external {
        (mid_fee, out_fee, fee_gamma) = (mid, out, feeGamma);
        emit NewParameters(0, mid, out, feeGamma, 0, 0, 0);
    }

    function ramp_A_gamma(uint256 a, uint256 g, uint256 until) external {
        (uint256 a0, uint256 g0) = _parameters();
        initial_A_gamma = a0 << 128 | g0;
        initial_A_gamma_time = block.timestamp;
        future_A_gamma = a << 128 | g;
        future_A_gamma_time = until;
        emit RampAgamma(a0, a, g0, g, block.timestamp, until);
    }

    // How it is done.

    function _take(uint256 k, uint256 amount) private {
        require(IToken(coins[k]).transferFrom(msg.sender, address(this), amount), "not paid");
        balances[k] += amount;
    }

    function _give(uint256 k, uint256 amount) private {
        balances[k] -= amount;
        require(IToken(coins[k]).transfer(msg.sender, amount), "not paid");
    }

    function _settle() private {
        (uint256 a, uint256 g) = _parameters();
        D = _invariant(a, g, _scaled(balances));
    }

    function _parameters() private view returns (uint256 a, uint256 g) {
        (a, g) = (future_A_gamma >> 128, future_A_gamma & type(uint128).max);
        if (block.timestamp < future_A_gamma_time) {
            uint256 span = future_A_gamma_time - initial_A_gamma_time;
            uint256 gone = block.timestamp - initial_A_gamma_time;
            a = ((initial_A_gamma >> 128) * (span - gone) + a * gone) / span;
            g = ((initial_A_gamma & type(uint128).max) * (span - gone) + g * gone) / span;
        }
    }

    function _scaled(uint256[2] memory held) private view returns (uint256[2] memory) {
        return [held[0] * precisions_[0], held[1] * (price_scale * precisions_[1]) / ONE];
    }

    function _charge(uint256[2] memory xp) private view returns (uint256) {
        uint256 sum = xp[0] + xp[1];
        uint256 share = fee_gamma * ONE / (fee_gamma + ONE - ONE * 4 * xp[0] / sum * xp[1] / sum);
        return (mid_fee * share + out_fee * (ONE - share)) / ONE;
    }

    function _apart(uint256 a, uint256 b) private pure returns (uint256) {
        return a > b ? a - b : b - a;
    }

    /// D / (A n^n) (gamma + 1 - K0)^2 / gamma^2 and gamma + 1 - K0, the two terms that both searches share.
    function _terms(uint256 ann, uint256 g, uint256 d, uint256 k0) private pure returns (uint256 first, uint256 far) {
        far = _apart(g + ONE, k0) + 1;
        first = ONE * d / g * far / g * far * 10000 / ann;
    }

    function _other(uint256 ann, uint256 g, uint256 x, uint256 d) private pure returns (uint256 y) {
        require(d >= 10 ** 17 && d <= 10 ** 33, "D");
        y = d ** 2 / (x * 4);
        uint256 half = 2 * ONE * x / d;
        require(half > 2 * 10 ** 16 - 1 && half < 2 * 10 ** 20 + 1, "x");
        uint256 limit = x > d ? x / 10 ** 14 : d / 10 ** 14;
        if (limit < 100) limit = 100;
        for (uint256 round = 0; round < 255; round++) {
            uint256 last = y;
            uint256 k0 = half * y * 2 / d;
            (uint256 first, uint256 far) = _terms(ann, g, d, k0);
            uint256 second = ONE + 2 * ONE * k0 / far;
            uint256 slope = ONE * y + (x + y) * second + first;
            if (slope < d * second) {
                y = last / 2;
                continue;
            }
            slope -= d * second;
            uint256 steep = slope / y;
            uint256 down = first / steep;
            uint256 up = (slope + ONE * d) / steep + down * ONE / k0;
            down += ONE * (x + y) / steep;
            y = up < down ? last / 2 : up - down;
            if (_apart(y, last) < (limit > y / 10 ** 14 ? limit : y / 10 ** 14)) {
                uint256 share = y * ONE / d;
                require(share > 10 ** 16 - 1 && share < 10 ** 20 + 1, "y");
                return y;
            }
        }
        revert("no end");
    }

    function _mean(uint256 high, uint256 low) private pure returns (uint256 m) {
        m = high;
        for (uint256 round = 0; round < 255; round++) {
            uint256 last = m;
            m = (m + high * low / m) / 2;
            uint256 moved = _apart(m, last);
            if (moved <= 1 || moved * ONE < m) return m;
        }
        revert("no end");
    }

    function _invariant(uint256 ann, uint256 g, uint256[2] memory xp) private pure returns (uint256 d) {
        (uint256 high, uint256 low) = xp[0] < xp[1] ? (xp[1], xp[0]) : (xp[0], xp[1]);
        require(high >= 10 ** 9 && high <= 10 ** 33 && low * ONE / high >= 10 ** 14, "x");
        d = 2 * _mean(high, low);
        uint256 sum = high + low;
        for (uint256 round = 0; round < 255; round++) {
            uint256 last = d;
            uint256 k0 = ONE * 4 * high / d * low / d;
            (uint256 first, uint256 far) = _terms(ann, g, d, k0);
            uint256 second = 2 * ONE * 2 * k0 / far;
            uint256 slope = (sum + sum * second / ONE) + first * 2 / k0 - second * d / ONE;
            uint256 up = d * (slope + sum) / slope;
            uint256 down = d * d / slope;
            uint256 part = d * (first / slope) / ONE;
            if (ONE > k0) down += part * (ONE - k0) / k0;
            else down -= part * (k0 - ONE) / k0;
            d = up > down ? up - down : (down - up) / 2;
            if (_apart(d, last) * 10 ** 14 < (d > 10 ** 16 ? d : 10 ** 16)) {
                for (uint256 k = 0; k < 2; k++) {
                    uint256 share = xp[k] * ONE / d;
                    require(share > 10 ** 16 - 1 && share < 10 ** 20 + 1, "x");
                }
                return d;
            }
        }
        revert("no end");
    }
}

/// Speaks as the first factory does, whose event does not say its pool's address, and as the next one's, which does.
contract CryptoFactory {
    address[] private pools;

    event CryptoPoolDeployed(
        address token, address[2] coins, uint256 A, uint256 gamma, uint256 mid_fee, uint256 out_fee, uint256 extra,
        uint256 fee_gamma, uint256 step, uint256 admin_fee, uint256 ma_half_time, uint256 initial_price, address deployer
    );
    event TwocryptoPoolDeployed(
        address pool, string name, string symbol, address[2] coins, address math, bytes32 salt, uint256[2] precisions,
        uint256 packed_A_gamma, uint256 packed_fee_params, uint256 packed_rebalancing_params, uint256 packed_prices, address deployer
    );

    function pool_count() external view returns (uint256) {
        return pools.length;
    }

    function pool_list(uint256 k) external view returns (address) {
        return k < pools.length ? pools[k] : address(0);
    }

    function deploy_pool(address[2] calldata coins, uint256 a, uint256 gamma, uint256[3] calldata fees, uint256 price, bool ng) external {
        address pool = address(new CryptoPool(coins, a, gamma, fees[0], fees[1], fees[2], price, ng));
        pools.push(pool);
        if (ng) {
            uint256[2] memory none;
            emit TwocryptoPoolDeployed(pool, "two", "two", coins, pool, 0, none, a << 128 | gamma, 0, 0, price, msg.sender);
        } else {
            emit CryptoPoolDeployed(pool, coins, a, gamma, fees[0], fees[1], 0, fees[2], 0, 0, 0, price, msg.sender);
        }
    }
}
